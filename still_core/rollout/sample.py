"""Sample: a fixed number of responses per problem, for evaluation, pass rates and teachers.

problems x n -> bank first, then the pool -> judged rollouts, by sample index
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from still_core.problems.problem import Problem
from still_core.progress import ProgressListener
from still_core.rollout.rollout import Rollout, Sampling
from still_core.rollout.search import (
    Attempt,
    Bank,
    Campaign,
    Pool,
    ProblemSearch,
    PromptTemplate,
    Tally,
    Verifier,
    search_builder,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleGroup:
    """All samples of one problem: an unbiased group, fit for baselines and pass rates."""

    problem: Problem
    attempts: tuple[Attempt, ...]  # [num_samples]
    rollouts: tuple[Rollout, ...]
    """[num_samples], texts and verdicts without token ids; none where texts were not to be kept."""

    @property
    def num_correct(self) -> int:
        """Correct samples."""
        return sum(attempt.correct for attempt in self.attempts)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleResult:
    """Samples of every problem, in the order of the problems."""

    groups: tuple[SampleGroup, ...]
    tally: Tally
    """What it cost this time; no part of the result."""


def sample(
    problems: Sequence[Problem],
    pool: Pool,
    bank: Bank | None,
    verifier: Verifier,
    sampling: Sampling,
    *,
    num_samples: int = 1,
    seed: int = 0,
    round: int = 0,
    prompt: str | PromptTemplate,
    owner: str = "sample",
    stage: str = "sample",
    keeps_texts: bool = True,
    progress: ProgressListener | None = None,
) -> SampleResult:
    """Draw `num_samples` responses to each problem and judge them.

    Args as for `explore`; `stage` names the work in progress reports, and `keeps_texts=False` is
    for who only counts: the texts of many problems take gigabytes.

    Raises:
        DataError: two problems share an id.
        RolloutError: the engines can not go on.
        VerifierError: the verifier can not go on.
    """
    campaign = Campaign(
        stage=stage,
        pool=pool,
        verifier=verifier,
        bank=bank,
        owner=owner,
        build=search_builder(
            pool,
            prompt,
            sampling,
            max_attempts=num_samples,
            seed=seed,
            round=round,
            until_correct=False,
            keeps_texts=keeps_texts,
        ),
        in_flight_limit=lambda finished: num_samples,
        idle_limit=lambda finished: num_samples,
        abort_siblings=False,
        progress=progress,
    )
    searches = campaign.run(problems)
    return SampleResult(groups=tuple(_group(search) for search in searches), tally=campaign.tally)


def _group(search: ProblemSearch) -> SampleGroup:
    return SampleGroup(
        problem=search.problem,
        attempts=search.counted(),
        rollouts=tuple(search.kept[index] for index in sorted(search.kept)),
    )
