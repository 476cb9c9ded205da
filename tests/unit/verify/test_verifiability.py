"""STILL-3's filters: what has one verifiable answer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from still_core.verify import VerifierPool
from still_core.verify.verifiability import QuestionType, parses_to_digits, question_type


@pytest.mark.parametrize(
    "gold",
    ["12", "-3.5", r"\frac{1}{2}", r"\sqrt{2}\pi", r"90^\circ", "10!", r"2^{2008}-2", r"\$5", "e"],
)
def test_numbers_parse_to_digits(gold: str) -> None:
    assert parses_to_digits(gold)


@pytest.mark.parametrize(
    "gold",
    ["", "x+1", "(1,2)", "3, 4", r"\text{east}", "1/0", r"\infty", "2+3i", "x=5", "[0,1]"],
)
def test_everything_else_does_not(gold: str) -> None:
    assert not parses_to_digits(gold)


@pytest.mark.parametrize("gold", ["9^{9^{9}}", "((9^9)^{9999})^{9999}", "100000000!", "9" * 9999])
def test_a_tower_is_refused_before_it_is_computed(gold: str) -> None:
    with VerifierPool(deadline_s=1.0) as pool:
        assert not pool.parses_to_digits(gold)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Find the value of $x$ if $2x = 6$.", QuestionType.COMPUTATION),
        ("Prove that $\\sqrt{2}$ is irrational.", QuestionType.PROOF),
        ("Show that 7 is prime, and find its square.", QuestionType.COMPUTATION),
        ("What is 2+2?\nA. 3\nB. 4\nC. 5\nD. 6", QuestionType.MULTIPLE_CHOICE),
        ("Which of the following is largest?", QuestionType.MULTIPLE_CHOICE),
        ("Define a continuous function.", QuestionType.CONCEPT),
        ("Design an experiment that measures gravity.", QuestionType.OPEN_ENDED),
        ("(a) Find x. (b) Find y, given the above.", QuestionType.MULTI_PART),
        ("Let f satisfy: (1) f(0)=0; (2) f(1)=1. Find f(2).", QuestionType.COMPUTATION),
    ],
)
def test_question_types(statement: str, expected: QuestionType) -> None:
    assert question_type(statement) is expected


def test_nearly_all_of_math_500_is_verifiable(shared_data: Path) -> None:
    lines = (shared_data / "MATH_OAI.jsonl").read_text().splitlines()
    types = Counter(question_type(json.loads(line)["problem"]) for line in lines)
    assert types[QuestionType.COMPUTATION] >= 495
