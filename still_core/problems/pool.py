"""The pool of problems to explore: which ones a round takes (STILL-2 section 2.3).

problems, what earlier rounds tried and solved -> this round's problems, what is left
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from still_core.errors import ConfigError, DataError, explain
from still_core.identity import derive_seed
from still_core.problems.problem import Bucket, Problem
from still_core.recipes.section import Section


class DifficultyRecipe(Section):
    """Which measured pass rates make a problem worth exploring (STILL-3: neither zero nor high)."""

    attempts: int = Field(
        0, ge=0, le=1024, description="Samples per problem, a fixed number; 0 measures nothing."
    )
    min_pass_rate: float = Field(0.0, ge=0.0, le=1.0, description="Least pass rate, inclusive.")
    max_pass_rate: float = Field(1.0, ge=0.0, le=1.0, description="Largest pass rate, inclusive.")
    drop_unsolved: bool = Field(
        False, description="Drop problems that no attempt solved (STILL-3: pass rate zero)."
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ConfigError(
                explain(
                    "the pass-rate window is empty",
                    got=(self.min_pass_rate, self.max_pass_rate),
                    expected="min_pass_rate <= max_pass_rate",
                )
            )
        window = (self.min_pass_rate, self.max_pass_rate) != (0.0, 1.0) or self.drop_unsolved
        if window and not self.attempts:
            raise ConfigError(
                explain(
                    "a pass-rate window without a measurement",
                    expected="attempts >= 1",
                    remedy="set pool.difficulty.attempts",
                )
            )
        return self


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
    difficulty: DifficultyRecipe = Field(
        default_factory=DifficultyRecipe,
        description="Pass rates under M_1 that a problem must have, measured before exploration.",
    )

    def holds(self, problem: Problem) -> bool:
        """Whether the problem belongs to the pool."""
        return problem.bucket in self.buckets and (
            not self.sources or problem.source in self.sources
        )


def require_pool(problems: Sequence[Problem], recipe: PoolRecipe) -> None:
    """Refuse to explore nothing.

    Raises:
        DataError: none of the problems belongs to the pool.
    """
    if any(recipe.holds(problem) for problem in problems):
        return
    buckets = Counter(str(p.bucket) for p in problems if p.source in (recipe.sources or {p.source}))
    raise DataError(
        explain(
            "the pool holds no problem to explore",
            got=f"{dict(buckets)} in {', '.join(recipe.sources) or 'all sources'}",
            expected=f"problems in pool.buckets {[str(bucket) for bucket in recipe.buckets]}",
            remedy="name buckets and sources with problems in the pool, or set rounds=0",
        )
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
        if recipe.holds(problem) and problem.digest not in solved
    }
    order = sorted(eligible, key=lambda digest: derive_seed(seed, "pool", digest))
    again = [digest for digest in order if digest in tried] if recipe.retry_unsolved else []
    fresh = [digest for digest in order if digest not in tried]
    chosen = (again + fresh)[: recipe.problems_per_round]
    return Draw([eligible[digest] for digest in chosen], len(again) + len(fresh) - len(chosen))
