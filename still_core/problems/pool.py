"""The pool of problems to explore: which ones a round takes (STILL-2 section 2.3).

problems, what earlier rounds tried and solved -> this round's problems, what is left
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from pydantic import Field

from still_core.identity import derive_seed
from still_core.problems.problem import Bucket, Problem
from still_core.recipes.section import Section


class PoolRecipe(Section):
    """Which problems are explored. The paper focuses on hard ones; numbers are open in it."""

    sources: tuple[str, ...] = Field(
        (), description="Names of the sources to explore; empty takes all."
    )
    buckets: tuple[Bucket, ...] = Field(
        (Bucket.HARD_MATH,), description="Difficulty buckets to explore; simple problems hurt."
    )
    problems_per_round: int = Field(
        1000, ge=1, description="Problems of one round: unsolved ones again, then fresh ones."
    )
    retry_unsolved: bool = Field(
        True, description="Try problems again that earlier rounds left unsolved."
    )


class Draw(NamedTuple):
    """One round's problems, and how many of the pool stay unsolved and unexplored beside them."""

    problems: list[Problem]
    left: int


def draw_round(
    problems: Sequence[Problem],
    recipe: PoolRecipe,
    *,
    tried: Collection[str],
    solved: Collection[str],
    seed: int,
) -> Draw:
    """One round's problems: those tried and unsolved first, then fresh ones, in a seeded order.

    Args:
        problems: all training problems.
        tried: digests of problems that an earlier round rolled out.
        solved: digests of problems that are solved already.
        seed: of the order of fresh problems; the same in every round, so rounds do not overlap.

    Returns:
        At most `problems_per_round` problems, distinct by digest; `left` counts the rest.
    """
    eligible = {
        problem.digest: problem
        for problem in sorted(problems, key=lambda p: p.id, reverse=True)
        if problem.bucket in recipe.buckets
        and (not recipe.sources or problem.source in recipe.sources)
        and problem.digest not in solved
    }
    order = sorted(eligible, key=lambda digest: derive_seed(seed, "pool", digest))
    again = [digest for digest in order if digest in tried] if recipe.retry_unsolved else []
    fresh = [digest for digest in order if digest not in tried]
    chosen = (again + fresh)[: recipe.problems_per_round]
    return Draw([eligible[digest] for digest in chosen], len(again) + len(fresh) - len(chosen))
