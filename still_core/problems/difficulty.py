"""Difficulty by measured pass rate (STILL-3 section 2.1): drop problems never or too often solved.

problems -> a fixed number of samples each -> pass rates -> those inside the window

The number is fixed before sampling: attempts that stop at the first success measure no rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from still_core.errors import DataError, explain
from still_core.problems.filters import DroppedProblem, Filtered, drop
from still_core.problems.pool import DifficultyRecipe
from still_core.problems.problem import Problem

if TYPE_CHECKING:
    from still_core.rollout.sample import SampleResult


@dataclass(frozen=True, kw_only=True, slots=True)
class PassRate:
    """How often one problem was solved by a fixed number of attempts."""

    num_correct: int
    num_attempts: int

    @property
    def rate(self) -> float:
        """Share of correct attempts, 0 to 1."""
        return self.num_correct / self.num_attempts


def measured_rates(result: SampleResult) -> dict[str, PassRate]:
    """Pass rate by problem id, from samples of a fixed number per problem."""
    return {
        group.problem.id: PassRate(num_correct=group.num_correct, num_attempts=len(group.attempts))
        for group in result.groups
    }


def within_window(
    problems: Sequence[Problem], rates: Mapping[str, PassRate], recipe: DifficultyRecipe
) -> Filtered:
    """The problems whose pass rate lies in the recipe's window.

    Raises:
        DataError: a problem has no rate, or one of another number of attempts.
    """
    from still_core.refine.funnel import Funnel

    kept: list[Problem] = []
    dropped: list[DroppedProblem] = []
    reasons: Counter[str] = Counter()
    for problem in problems:
        found = rates.get(problem.id)
        if found is None or found.num_attempts != recipe.attempts:
            raise DataError(
                explain(
                    f"problem {problem.id!r} has no pass rate of {recipe.attempts} attempts",
                    got=found,
                    expected="one fixed number of attempts for all problems",
                )
            )
        reason = _outside(found.rate, recipe)
        if reason:
            reasons[reason] += 1
            dropped.append(drop(problem, "pass_rate", f"{reason} {found.rate:.4g}"))
        else:
            kept.append(problem)
    funnel = Funnel().step("pass rate", len(kept), reasons)
    return Filtered(kept=kept, dropped=dropped, funnel=funnel)


def _outside(rate: float, recipe: DifficultyRecipe) -> str:
    if recipe.drop_unsolved and rate == 0.0:
        return "never_solved"
    if rate < recipe.min_pass_rate:
        return "too_hard"
    return "too_easy" if rate > recipe.max_pass_rate else ""


def rate_rows(problems: Sequence[Problem], rates: Mapping[str, PassRate]) -> list[dict[str, Any]]:
    """One flat row per problem, for Parquet."""
    return [
        {
            "problem": problem.id,
            "domain": problem.domain,
            "level": problem.level,
            "correct": rates[problem.id].num_correct,
            "attempts": rates[problem.id].num_attempts,
            "pass_rate": rates[problem.id].rate,
        }
        for problem in problems
    ]


def rate_histogram(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Problems by number of correct attempts, for people."""
    counts = Counter((int(row["correct"]), int(row["attempts"])) for row in rows)
    return [
        {"correct": f"{correct} of {attempts}", "problems": counts[correct, attempts]}
        for correct, attempts in sorted(counts)
    ]
