"""Choices in the forms that real outputs use, and short answers in words."""

from __future__ import annotations

import time

import pytest

from still_core.verify.choice import judge_choice
from still_core.verify.text import judge_text
from still_core.verify.verdict import Outcome


@pytest.mark.parametrize(
    ("gold", "pred"),
    [
        ("B", "(B)"),
        ("B", "B."),
        ("B", "b"),
        ("B", r"\text{(B)}"),
        ("B", r"\mathbf{B}"),
        ("B", "**B**"),
        ("B", "B) Paris"),
        ("B", "B. Paris is a city"),
        ("B", "Option B"),
        ("B", "The answer is B"),
        ("B", "The correct answer is (B)."),
        ("B", "It is not A, therefore I think it's B"),
        ("D", "The answer: D, it doesn't make sense for it to be A or B"),
        ("D", "D. it can't be A or B"),
        ("B", "B不是 A"),
        ("A, C", "A and C"),
        ("A, C", "CA"),
        ("AC", r"\text{A, C}"),
        ('["A", "C"]', "A,C"),
        ("A, C", "The answer is A and C"),
        ("A, C", "both A and C"),
        ("A, C", "Both (A) and (C) are correct"),
        ("A, C", "A. CH4\nC. H2O"),
        ("A, C", "(a) and (c)"),
        ("A, C, D", "A, C, and D"),
        ("A, C, D", "(A)(C)(D)"),
        ("B, D", "\u6545\u9009BD"),
        ("B", "\u6545\u9009\uff1aB\u3002"),
        ("B", "\uff22"),
        ("B", "option b"),
        ("B", "the answer is (b)"),
        ("A", "the answer is A because of x"),
        ("A", "A is correct"),
        ("J", "J."),
    ],
)
def test_a_letter_is_read_in_every_form(gold: str, pred: str) -> None:
    assert judge_choice(gold, pred, ())[0] is Outcome.CORRECT


@pytest.mark.parametrize(
    ("gold", "pred", "outcome"),
    [
        ("B", "C", Outcome.WRONG),
        ("B", "A and B", Outcome.WRONG),
        ("A, C", "A", Outcome.WRONG),
        ("B", "ABCD", Outcome.WRONG),
        ("B", "none of them", Outcome.UNPARSABLE),
        ("C", "both A and C", Outcome.WRONG),
        ("I", "I do not know", Outcome.UNPARSABLE),
        ("A", "A dog", Outcome.UNPARSABLE),
        ("B", "A. one\nB. two\nC. three", Outcome.WRONG),
        ("B", "", Outcome.UNPARSABLE),
        ("B", "\u0412", Outcome.UNPARSABLE),
        ("?", "B", Outcome.ERROR),
    ],
)
def test_other_letters_are_not_accepted(gold: str, pred: str, outcome: Outcome) -> None:
    assert judge_choice(gold, pred, ())[0] is outcome


@pytest.mark.parametrize(
    "bait",
    ["A B " * 900 + "x", "answer" + " :" * 1900 + " x", "A\" ' " * 900 + "x", "A, " * 1300 + "x"],
)
def test_the_time_for_a_letter_is_linear_in_the_text(bait: str) -> None:
    started = time.perf_counter()
    judge_choice("H, J", bait, ())
    assert time.perf_counter() - started < 0.2


def test_the_text_of_a_choice_names_its_letter() -> None:
    assert judge_choice("B", "Paris", ("Rome", "Paris"))[0] is Outcome.CORRECT
    assert judge_choice("B", "Rome", ("Rome", "Paris"))[0] is Outcome.WRONG


@pytest.mark.parametrize(
    ("gold", "pred", "same"),
    [
        ("paris", "Paris.", True),
        ("simple test", "A simple  test", True),
        ("hello world", r"\text{Hello, world!}", True),
        ("-3", "3", False),
        ("3.5", "35", False),
        ("paris", "p\u0430ris", False),
        ("42", "41", False),
        ("!", "?", False),
    ],
)
def test_words_are_equal_after_case_articles_and_punctuation(
    gold: str, pred: str, same: bool
) -> None:
    assert (judge_text(gold, pred)[0] is Outcome.CORRECT) is same
