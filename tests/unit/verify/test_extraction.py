"""The final answer is the last closed box of the solution part."""

from __future__ import annotations

import time

import pytest

from still_core.verify.extraction import boxed_answer, extract_final_answer, solution_part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{wrong}, final \boxed{42}", "42"),
        (r"start \boxed{never closes", None),
        (r"\boxed{1} then \boxed{never closes", None),
        ("no box", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 7 apples", "7"),
        (r"\fbox{7}", "7"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}", None),
        (r"<think>\boxed{1}</think> none here", None),
        (r"reasoning \boxed{3} </think> \boxed{2}", "2"),
        (
            r"<|begin_of_thought|>\boxed{1}<|end_of_thought|>"
            r"<|begin_of_solution|>\boxed{2}<|end_of_solution|>\boxed{3}",
            "2",
        ),
        (r"<|begin_of_thought|> \boxed{1} and on and on", None),
        (r"\boxed{2}<|im_end|> \boxed{9}", "2"),
    ],
)
def test_the_last_box_of_the_solution_is_the_answer(text: str, expected: str | None) -> None:
    assert extract_final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3"),
        (r"\(\boxed{k=1} \quad \text{and} \quad \boxed{n=2}\)", "k=1, n=2"),
        (r"I tried \boxed{1}. Final: \boxed{2}", "2"),
        (r"\boxed{1} and then but \boxed{2}", "2"),
    ],
)
def test_boxes_tied_by_and_are_one_answer(text: str, expected: str) -> None:
    assert boxed_answer(text, join=True) == expected


def test_a_thought_that_starts_again_after_its_end_is_truncated() -> None:
    assert solution_part("<think>a</think> b <think> c").text is None


def test_extraction_is_linear_in_hostile_text() -> None:
    started = time.perf_counter()
    for text in (
        r"\boxed{" * 50_000,
        "$" * 500_000,
        "{" * 500_000 + r"\boxed{1}",
        "<think>" * 99_999,
    ):
        extract_final_answer(text)
    assert time.perf_counter() - started < 2.0
