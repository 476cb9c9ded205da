"""Pass-rate windows over problems."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from still_core.errors import DataError
from still_core.problems.difficulty import PassRate, rate_histogram, rate_rows, within_window
from still_core.problems.pool import DifficultyRecipe
from still_core.problems.problem import AnswerKind, Bucket, Problem

PROBLEMS = [
    Problem(
        id=f"s/{i}",
        statement=f"What is {i} + {i}?",
        gold=str(2 * i),
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.HARD_MATH,
        source="s",
        row=i,
    )
    for i in range(4)
]
RATES = {f"s/{i}": PassRate(num_correct=n, num_attempts=8) for i, n in enumerate((0, 1, 4, 8))}


def test_never_too_hard_and_too_easy_problems_are_dropped_by_name() -> None:
    recipe = DifficultyRecipe(
        attempts=8, drop_unsolved=True, min_pass_rate=0.25, max_pass_rate=0.75
    )
    found = within_window(PROBLEMS, RATES, recipe)
    assert [problem.id for problem in found.kept] == ["s/2"]
    assert [one.reason for one in found.dropped] == [
        "never_solved 0", "too_hard 0.125", "too_easy 1",
    ]  # fmt: skip
    assert found.funnel.steps[0].dropped == {"never_solved": 1, "too_easy": 1, "too_hard": 1}


def test_all_rates_come_from_one_number_of_attempts() -> None:
    recipe = DifficultyRecipe(attempts=8, drop_unsolved=True)
    other = {**RATES, "s/1": PassRate(num_correct=1, num_attempts=4)}
    with pytest.raises(DataError, match="no pass rate of 8 attempts"):
        within_window(PROBLEMS, other, recipe)
    with pytest.raises(DataError, match="no pass rate of 8 attempts"):
        within_window(PROBLEMS, {}, recipe)


@pytest.mark.parametrize(
    "window", [{"max_pass_rate": 0.5}, {"drop_unsolved": True}, {"min_pass_rate": 0.5}]
)
def test_a_window_without_a_measurement_is_refused(window: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="without a measurement"):
        DifficultyRecipe.model_validate(window)


def test_rates_are_counted_for_people() -> None:
    rows = rate_rows(PROBLEMS, {**RATES, "s/1": PassRate(num_correct=0, num_attempts=8)})
    assert [row["pass_rate"] for row in rows] == [0.0, 0.0, 0.5, 1.0]
    assert rate_histogram(rows)[0] == {"correct": "0 of 8", "problems": 2}
