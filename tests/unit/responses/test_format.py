"""The strict reader and the renderer of the thought/solution format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from still_core.errors import ResponseFormatError
from still_core.responses.format import (
    TOKENS,
    Defect,
    DefectKind,
    classify,
    render_response,
    split_steps,
)
from still_core.responses.response import Response

BT, ET, BS, ES = TOKENS
GOOD = f"{BT}\nfirst\n\nsecond\n{ET}\n\n{BS}\nso \\boxed{{4}}\n{ES}"

parts = st.text(min_size=1).filter(lambda s: bool(s.strip()) and not any(t in s for t in TOKENS))


def kind(text: str) -> DefectKind:
    result = classify(text)
    assert isinstance(result, Defect), result
    return result.kind


def test_the_papers_layout_is_read_into_thought_and_solution() -> None:
    assert classify(GOOD) == Response(thought="first\n\nsecond", solution="so \\boxed{4}")


def test_rendering_what_was_read_gives_the_same_bytes() -> None:
    read = classify(GOOD)
    assert isinstance(read, Response)
    assert render_response(read) == GOOD


def test_text_right_after_begin_of_solution_is_read_as_in_the_public_data() -> None:
    assert classify(GOOD.replace(f"{BS}\n", BS)) == classify(GOOD)


@given(thought=parts, solution=parts)
def test_reading_what_was_rendered_gives_the_same_response(thought: str, solution: str) -> None:
    response = Response(thought=thought, solution=solution)
    assert classify(render_response(response)) == response


@given(st.text())
def test_any_text_is_either_a_response_or_one_named_defect(text: str) -> None:
    result = classify(text)
    assert isinstance(result, Response) or result.kind in DefectKind


@given(thought=parts, solution=parts, cut=st.integers(min_value=1))
def test_every_proper_beginning_of_a_response_is_truncated(
    thought: str, solution: str, cut: int
) -> None:
    text = render_response(Response(thought=thought, solution=solution))
    found = kind(text[: 1 + cut % (len(text) - 1)])
    assert found.is_truncated(), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DefectKind.EMPTY),
        (" \n", DefectKind.EMPTY),
        ("the answer is 4", DefectKind.NO_TOKENS),
        (GOOD.replace(BT, ""), DefectKind.MISSING_TOKEN),
        (GOOD.replace(ET, ""), DefectKind.MISSING_TOKEN),
        (GOOD.replace(BS, ""), DefectKind.MISSING_TOKEN),
        (f"{BT}\na\n{ET}\n\nso 4", DefectKind.MISSING_TOKEN),
        (GOOD.replace(ES, ""), DefectKind.TRUNCATED_SOLUTION),
        (f"{BT}\na", DefectKind.TRUNCATED_THOUGHT),
        ("<|begin_of_th", DefectKind.TRUNCATED_THOUGHT),
        (f"{BT}\na\n{ET}\n\n", DefectKind.TRUNCATED_BEFORE_SOLUTION),
        (f"{BT}\na\n{ET}\n\n<|begin_of", DefectKind.TRUNCATED_BEFORE_SOLUTION),
        (f"{BT}\na\n{ET}\n\n{BS}\nb", DefectKind.TRUNCATED_SOLUTION),
        (GOOD + GOOD, DefectKind.DOUBLED_TOKEN),
        (GOOD.replace("second", f"second {BT}"), DefectKind.DOUBLED_TOKEN),
        (f"{BS}\nb\n{ES}\n\n{BT}\na\n{ET}", DefectKind.MISORDERED_TOKENS),
        ("Sure! " + GOOD, DefectKind.TEXT_BEFORE),
        (GOOD.replace(f"{ET}\n\n", f"{ET}\nthus\n"), DefectKind.TEXT_BETWEEN),
        (GOOD + " done", DefectKind.TEXT_AFTER),
        (f"{BT}\n \n{ET}\n\n{BS}\nb\n{ES}", DefectKind.EMPTY_THOUGHT),
        (f"{BT}\na\n{ET}\n\n{BS}\n\n{ES}", DefectKind.EMPTY_SOLUTION),
        (GOOD + "\n", DefectKind.SPACING),
        (GOOD.replace(f"{BT}\n", BT), DefectKind.SPACING),
        (GOOD.replace(f"{ET}\n\n", f"{ET}\n"), DefectKind.SPACING),
    ],
)
def test_each_defect_has_its_name(text: str, expected: DefectKind) -> None:
    assert kind(text) == expected


def test_a_defect_says_where_it_shows() -> None:
    result = classify(GOOD + " done")
    assert isinstance(result, Defect)
    assert GOOD[: result.position] == GOOD
    assert str(result) == f"text_after: 4 characters after the solution (at character {len(GOOD)})"


@pytest.mark.parametrize("response", [("", "b"), ("a", " "), (f"a {ET}", "b"), ("a", BS)])
def test_what_could_not_be_read_back_is_not_rendered(response: tuple[str, str]) -> None:
    with pytest.raises(ResponseFormatError):
        render_response(Response(thought=response[0], solution=response[1]))


def test_loose_spacing_reads_other_peoples_files() -> None:
    text = f"\n{BT}\n\nfirst\n\n{ET}\n{BS}\n\nb\n\n{ES}\n"
    assert kind(text) == DefectKind.SPACING
    assert classify(text, exact_spacing=False) == Response(thought="first", solution="b")


def test_steps_are_what_stands_between_blank_lines() -> None:
    steps = split_steps("one\nstill one\n\ntwo\n \n\nthree\n")
    assert steps == ["one\nstill one", "two", "three"]
