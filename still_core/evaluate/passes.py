"""Several samples a problem: mean@n, pass@k, maj@k; until-correct sampling: rates by attempt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from still_core.errors import DataError, explain


def mean_at_n(correct: Sequence[Sequence[bool]]) -> float:
    """The mean over problems of the share of correct samples, in [0, 1].

    Args:
        correct: per problem its samples' results.  # [num_problems][num_samples >= 1]

    Raises:
        DataError: no problem, or a problem without samples.
    """
    if not correct or not all(correct):
        raise DataError(explain("mean@n of a problem without samples"))
    return sum(sum(samples) / len(samples) for samples in correct) / len(correct)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that at least one of `k` samples is correct, given `c` correct of `n` drawn.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1), by exact integers.

    Raises:
        DataError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise DataError(explain("pass@k", got=(n, c, k), expected="0 <= c <= n and 1 <= k <= n"))
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Chance that a majority vote over the samples gives a correct answer, in [0, 1].

    Samples without an answer do not vote; ties are broken evenly, hence a fraction. Equal answers
    share a verdict as a rule; where they do not, the share of correct ones counts.

    Raises:
        DataError: the sequences differ in length or are empty.
    """
    if len(answers) != len(correct) or not answers:
        raise DataError(explain("maj@k", got=(len(answers), len(correct)), expected="equal, >= 1"))
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = max(votes.values())
    leaders = {answer for answer, count in votes.items() if count == top}
    right = sum(
        1 for answer, good in zip(answers, correct, strict=True) if answer in leaders and good
    )
    return right / (top * len(leaders))


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """What sampling until correct did on one problem."""

    num_attempts: int
    """Samples drawn, >= 1."""
    solved_at: int | None
    """1-based attempt of the first correct one; None where unsolved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRate:
    """One attempt index over all problems."""

    attempt: int
    """1-based."""
    tried: int
    """Problems not solved before this attempt that had one."""
    solved: int
    """Of those, solved at this attempt."""
    rate: float
    """solved / tried, in [0, 1]; falls with the attempt, as the easy problems leave first."""
    cumulative: float
    """Share of all problems solved by now, in [0, 1]."""


def rates_by_attempt(problems: Iterable[Attempts]) -> tuple[AttemptRate, ...]:
    """Rate at each attempt and the share solved so far, from until-correct sampling.

    Raises:
        DataError: a problem without attempts, or solved beyond its attempts.
    """
    rows = tuple(problems)
    for row in rows:
        if row.num_attempts < 1 or not 1 <= (row.solved_at or 1) <= row.num_attempts:
            raise DataError(explain("impossible attempts", got=row))
    rates, solved_so_far = [], 0
    for attempt in range(1, max((row.num_attempts for row in rows), default=0) + 1):
        # Siblings drawn beyond the first correct one were decided already: they are not tried.
        last = [row.solved_at or row.num_attempts for row in rows]
        tried = sum(1 for end in last if end >= attempt)
        if tried == 0:
            break
        solved = sum(1 for row in rows if row.solved_at == attempt)
        solved_so_far += solved
        rates.append(
            AttemptRate(
                attempt=attempt,
                tried=tried,
                solved=solved,
                rate=solved / tried,
                cumulative=solved_so_far / len(rows),
            )
        )
    return tuple(rates)
