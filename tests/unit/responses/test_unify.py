"""Unification of every habit, on hand-made and on real responses."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import ConfigError
from still_core.responses.ending import ends_abruptly, ends_in_answer
from still_core.responses.format import TOKENS, DefectKind, classify, render_response
from still_core.responses.response import Response
from still_core.responses.unify import (
    Style,
    Unified,
    complete,
    tidy_steps,
    unify,
    unify_all,
)

BT, ET, BS, ES = TOKENS


@dataclass(frozen=True)
class Raw:
    text: str
    reasoning: str = ""
    finish_reason: str = ""


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def defect(one: Unified) -> DefectKind:
    assert one.defect is not None
    return one.defect.kind


@pytest.mark.parametrize(
    ("raw", "style"),
    [
        (f"{BT}\nfirst\n\nthen\n{ET}\n\n{BS}\nso 4.\n{ES}", Style.STILL),
        (f"{BT}\n\nfirst\n\nthen\n\n{ET}\n\n{BS}\n\nso 4.\n\n{ES}", Style.OPEN_THOUGHTS),
        ("<think>\nfirst\n\nthen\n</think>\n\nso 4.", Style.R1),
        ("first\n\nthen\n</think>\n\nso 4.", Style.R1),
        ("<think>first\n\nthen</think><answer>so 4.</answer>", Style.R1),
        (
            "<\uff5cUser\uff5c>2+2?<\uff5cAssistant\uff5c><think>first\n\nthen</think>so 4.",
            Style.R1,
        ),
        ("<think>first\n\nthen</think>so 4.<|im_end|>", Style.R1),
        (Raw("so 4.", "first\n\nthen"), Style.R1),
        (Raw("so 4.", "<think>\nfirst\n\nthen\n</think>"), Style.R1),
        (Raw("<think>first\n\nthen</think>so 4.", "first\n\nthen"), Style.R1),
        ("\ufeff<think>\r\nfirst\r\n\r\nthen\r\n</think>\r\n\r\nso 4.\r\n", Style.R1),
        ("<thinking>first\n\nthen</thinking>\nso 4.", Style.R1),
        (f"{BT}\r\nfirst\r\n\r\nthen\r\n{ET}\r\n\r\n{BS}\r\nso 4.\r\n{ES}", Style.STILL),
    ],
)
def test_every_habit_becomes_the_same_thought_and_solution(raw: Raw | str, style: Style) -> None:
    one = unify(raw)
    assert one.response == Response(thought="first\n\nthen", solution="so 4.")
    assert one.style == style
    assert classify(render_response(one.response)) == one.response


def test_a_thought_that_ends_in_its_answer_asks_for_a_solution() -> None:
    one = unify("First I add.\n\nSo it is \\boxed{4}.")
    assert (one.needs_solution, one.response, one.style) == (True, None, Style.QWQ)
    whole = complete(one, f"Adding gives \\boxed{{4}}.\n{ES}<|im_end|>")
    assert whole.response == Response(
        thought="First I add.\n\nSo it is \\boxed{4}.", solution="Adding gives \\boxed{4}."
    )
    assert not whole.needs_solution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Adding gives", DefectKind.TRUNCATED_SOLUTION),
        (f"Adding gives 4.\n{ES} and", DefectKind.TEXT_AFTER),
        (f"\n{ES}", None),
    ],
)
def test_a_bad_completion_is_no_response(text: str, expected: DefectKind | None) -> None:
    one = complete(unify("First I add.\n\nSo it is \\boxed{4}."), text)
    assert one.response is None
    if expected is not None:
        assert defect(one) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", DefectKind.EMPTY),
        ("<think>\nfirst, then", DefectKind.TRUNCATED_THOUGHT),
        ("<think>a.</think>b <think>c.</think>d.", DefectKind.DOUBLED_TOKEN),
        ("a </think> b <think> c", DefectKind.MISORDERED_TOKENS),
        ("This<think>is my reasoning.</think>\nThis is my answer.", DefectKind.TEXT_BEFORE),
        ("<think>\n</think>\nso 4.", DefectKind.EMPTY_THOUGHT),
        ("<think>first.</think>\nso the sum \\( x = ", DefectKind.TRUNCATED_SOLUTION),
        (f"{BT}\nfirst", DefectKind.TRUNCATED_THOUGHT),
        (f"{BT}\nfirst\n{ET}\n\n{BS}\nso", DefectKind.TRUNCATED_SOLUTION),
        (f"<think>first {BT}.</think>\nso 4.", DefectKind.MISORDERED_TOKENS),
    ],
)
def test_what_can_not_be_unified_is_named(text: str, expected: DefectKind) -> None:
    found = defect(unify(text))
    assert found == expected or (found.is_truncated() and expected.value.startswith("misordered"))


def test_the_finish_reason_overrules_the_ending() -> None:
    text = "<think>first.</think>\nso the answer is 4."
    assert unify(text).response is not None
    assert defect(unify(text, finish_reason="length")) == DefectKind.TRUNCATED_SOLUTION
    assert unify("<think>first</think>\nfour", finish_reason="stop").response is not None


def test_a_style_is_told_per_source() -> None:
    raws = [Raw("first.\n</think>\nso 4."), Raw("first. Therefore the answer is 4.")]
    assert [defect(one) for one in unify_all(raws)[1:]] == [DefectKind.TRUNCATED_THOUGHT]
    apart = unify_all(raws, sources=["a", "b"])
    assert apart[1].needs_solution


def test_a_response_says_itself_whether_it_was_cut() -> None:
    cut = unify_all([Raw("<think>first.</think>\nso 4.", finish_reason="length")])[0]
    assert defect(cut) == DefectKind.TRUNCATED_SOLUTION
    inside = unify(Raw("", "first, so it is four.", "length"))
    assert defect(inside) == DefectKind.TRUNCATED_THOUGHT
    assert unify(Raw("", "first, so it is four.", "stop")).needs_solution


def test_a_solution_without_its_thought_is_no_thought() -> None:
    raws = [Raw("so 4.", "first, then."), Raw("The answer is 4.")]
    for order in (raws, raws[::-1]):
        found = dict(zip(order, unify_all(order), strict=True))
        assert found[raws[0]].response is not None
        assert defect(found[raws[1]]) == DefectKind.EMPTY_THOUGHT


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown response style"):
        unify("text", "r2")


def test_steps_get_one_blank_line_between_them_and_code_keeps_its_own() -> None:
    assert tidy_steps("a\n\n\n\nb\n \nc\n") == "a\n\nb\n\nc"
    assert tidy_steps("a\nb\nc") == "a\n\nb\n\nc"
    code = "see\n\n\n```python\nx = 1\n\n\ny = 2\n```\n\n\ndone"
    assert tidy_steps(code) == "see\n\n```python\nx = 1\n\n\ny = 2\n```\n\ndone"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("The value is \\(\\boxed{4}\\).", False),
        ("\\[\n\\boxed{\\left(3, \\frac{\\pi}{2}\\right)}\n\\]", False),
        ("Answer: B", False),
        ("**Total:** 87", False),
        ("- **Total**: 87", False),
        ("**Answer**: harbour", False),
        ("2. **Flaws**:\n   - **Cracks and Flaws**: The", True),
        ("**Note**: The", True),
        ("Hope this helps! \U0001f60a", False),
        ("which was to be shown \u220e", False),
        (
            "\u0909\u0924\u094d\u0924\u0930 \u096a \u0939\u0948\u0964",
            False,
        ),
        ("```python\nprint(1)\n```", False),
        ("The value is \\boxed{2", True),
        ("so \\[ x = 4", True),
        ("and therefore the sum of the", True),
        ("```python\nprint(1)", True),
        ("We find:\n\n1. The first\n2.", True),
    ],
)
def test_a_cut_is_told_from_an_end(text: str, cut: bool) -> None:
    assert ends_abruptly(text) is cut


def test_a_stream_is_finished_once_it_names_its_answer() -> None:
    assert ends_in_answer("So, the final answer is 12.")
    assert not ends_in_answer("So let me try the next case.")


def test_finish_reasons_of_real_traces_agree_with_what_unify_tells(shared_data: Path) -> None:
    read = rows(shared_data, "model_outputs_mcq_gpqa_mmlu")
    told = Counter()
    for row, one in zip(read, unify_all([Raw(r["response"]) for r in read]), strict=True):
        cut = one.defect is not None and one.defect.kind.is_truncated()
        told[row["finish_reason"], cut] += 1
    assert told == {("length", True): 68, ("stop", False): 54}


@pytest.mark.parametrize("name", ["model_outputs_thinking_gsm8k", "model_outputs_thinking_math500"])
def test_every_unfinished_real_thought_is_classified_as_truncated(
    shared_data: Path, name: str
) -> None:
    read = rows(shared_data, name)
    for row, one in zip(read, unify_all([Raw(r["response"]) for r in read]), strict=True):
        if not row["finished"]:
            assert defect(one) == DefectKind.TRUNCATED_THOUGHT
            continue
        assert "</think>" in row["response"]
        thought, _, solution = row["response"].partition("</think>")
        if one.response is None:
            assert one.needs_solution or defect(one) == DefectKind.TRUNCATED_SOLUTION
            continue
        # What was recovered is what stood there, but for blank lines.
        assert "".join(one.response.thought.split()) == "".join(thought.split())
        assert one.response.solution == solution.strip()
        if row["expected"]:
            assert row["pred"] in one.response.solution


def test_real_traces_of_r1_without_a_closing_tag_are_truncated(shared_data: Path) -> None:
    read = rows(shared_data, "traces_r1distill_llama8b_general")
    unified = unify_all([Raw(r["response"]) for r in read])
    open_thoughts = ["</think>" not in r["response"] for r in read]
    found = [
        one.defect is not None and one.defect.kind is DefectKind.TRUNCATED_THOUGHT
        for one in unified
    ]
    assert found == open_thoughts
    assert len(read) == 262


def test_every_real_complex_cot_is_whole(shared_data: Path) -> None:
    read = rows(shared_data, "huatuo_o1_demo")
    unified = unify_all([Raw(r["Response"], r["Complex_CoT"]) for r in read])
    assert len(unified) == 105
    assert all(one.response is not None for one in unified)


def test_trls_cases_of_the_think_format_are_told_apart(shared_data: Path) -> None:
    read = [r for r in rows(shared_data, "extraction_cases") if r["fn"] == "think_format_reward"]
    assert len(read) == 8
    for row in read:
        one = unify(row["input"], "r1")
        if "</think>" in row["input"] and "<think>" not in row["input"]:
            continue  # Files leave out the opening tag where the prompt holds it.
        assert (one.response is not None) == (row["expected"] == 1.0)
