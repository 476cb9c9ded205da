"""Explore: roll out until a correct response, at most 20 times (STILL-2 section 2.3).

    problems -> attempts 0, 1, 2, ... of each until one is correct -> one selected response each

The selected response is the correct one with the lowest sample index, whatever ended first, so the
result is the same on any number of workers and after any crash. Groups that stopped early hold the
attempts up to the first success only: their pass rate is biased, and so is their length. They are
for SFT and preference data, never for a group baseline (see docs/explanations/explore.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from still_core.problems.problem import Problem
from still_core.progress import ProgressListener
from still_core.rollout.recipe import ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Rollout
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
class RolloutGroup:
    """The attempts at one problem that count: sample index 0 up to the first correct one."""

    problem: Problem
    attempts: tuple[Attempt, ...]  # [1..max_attempts], by sample index
    selected: Rollout | None
    """The correct rollout with the lowest index, None where no attempt was correct."""
    early_stopped: bool
    """Stopped before `max_attempts`: no unbiased sample of the policy, unfit as a baseline."""

    @property
    def solved(self) -> bool:
        """Whether an attempt was correct."""
        return self.selected is not None

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {
            "problem_id": self.problem.id,
            "problem_digest": self.problem.digest,
            "domain": self.problem.domain,
            "level": self.problem.level,
            "solved": self.solved,
            "early_stopped": self.early_stopped,
            "attempts": len(self.attempts),
            "truncated": sum(a.finish_reason.is_truncated() for a in self.attempts),
            "tokens": sum(a.num_tokens for a in self.attempts),
            "selected": self.selected.id if self.selected else None,
            "rollout_ids": [a.rollout_id for a in self.attempts],
            "outcomes": [str(a.outcome) for a in self.attempts],
            "num_tokens": [a.num_tokens for a in self.attempts],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploration:
    """What an exploration found, in the order of the problems."""

    groups: tuple[RolloutGroup, ...]
    tally: Tally
    """What it cost this time; no part of the result, which is the same from the bank."""

    @property
    def solved(self) -> tuple[RolloutGroup, ...]:
        """Groups with a selected response."""
        return tuple(group for group in self.groups if group.solved)

    @property
    def unsolved(self) -> tuple[RolloutGroup, ...]:
        """Groups whose attempts were all spent in vain."""
        return tuple(group for group in self.groups if not group.solved)

    @property
    def selected(self) -> tuple[Rollout, ...]:
        """The selected responses."""
        return tuple(group.selected for group in self.groups if group.selected is not None)

    def outcomes(self) -> dict[str, int]:
        """Number of attempts by outcome."""
        counts = Counter(str(a.outcome) for group in self.groups for a in group.attempts)
        return dict(sorted(counts.items()))

    def summary(self) -> dict[str, int]:
        """The result in a few numbers."""
        attempts = [a for group in self.groups for a in group.attempts]
        return {
            "problems": len(self.groups),
            "solved": len(self.solved),
            "attempts": len(attempts),
            "truncated": sum(a.finish_reason.is_truncated() for a in attempts),
            "tokens": sum(a.num_tokens for a in attempts),
        }

    def attempt_rows(self) -> list[dict[str, Any]]:
        """Pass rate by attempt.

        Returns:
            per attempt number (from 1): problems that came so far, those solved by this very
            attempt, and the share of all problems solved by then.
        """
        rows, solved = [], 0
        for index in range(max((len(group.attempts) for group in self.groups), default=0)):
            tried = [group for group in self.groups if len(group.attempts) > index]
            correct = sum(group.attempts[index].correct for group in tried)
            solved += correct
            rows.append(
                {
                    "attempt": index + 1,
                    "tried": len(tried),
                    "correct": correct,
                    "pass_rate": correct / len(tried),
                    "solved_so_far": solved / len(self.groups),
                }
            )
        return rows

    def to_rows(self) -> list[dict[str, Any]]:
        """The groups table."""
        return [group.to_row() for group in self.groups]


def explore(
    problems: Sequence[Problem],
    pool: Pool,
    bank: Bank | None,
    verifier: Verifier,
    recipe: ExploreRecipe,
    resources: RolloutResources,
    *,
    seed: int,
    round: int,
    prompt: str | PromptTemplate,
    owner: str = "explore",
    progress: ProgressListener | None = None,
) -> Exploration:
    """Roll out each problem until a response is correct, at most `recipe.max_attempts` times.

    Args:
        problems: what to solve; ids are unique.
        pool: holds the policy's weights.
        bank: read first, and given every rollout as it is judged; None keeps nothing.
        verifier: judges each rollout as it ends.
        recipe: sampling and number of attempts.
        resources: its waves, and whether siblings are cut; neither changes what is found.
        seed: recipe seed; with `round` the root of every sampling seed.
        round: round of the loop.
        prompt: prompt name, or the prompt itself.
        owner: writer's name in the bank.
        progress: told about twice a second.

    Raises:
        DataError: two problems share an id.
        RolloutError: the engines can not go on.
        VerifierError: the verifier can not go on.
    """
    campaign = Campaign(
        stage="explore",
        pool=pool,
        verifier=verifier,
        bank=bank,
        owner=owner,
        build=search_builder(
            pool,
            prompt,
            recipe.sampling,
            max_attempts=recipe.max_attempts,
            seed=seed,
            round=round,
            until_correct=True,
        ),
        in_flight_limit=resources.in_flight_limit,
        idle_limit=resources.idle_limit,
        abort_siblings=resources.abort_siblings,
        progress=progress,
    )
    searches = campaign.run(problems)
    return Exploration(groups=tuple(_group(search) for search in searches), tally=campaign.tally)


def _group(search: ProblemSearch) -> RolloutGroup:
    attempts = search.counted()
    return RolloutGroup(
        problem=search.problem,
        attempts=attempts,
        selected=next(iter(search.kept.values()), None),
        early_stopped=len(attempts) < len(search.ids),
    )
