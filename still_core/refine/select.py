"""Selection among clean demonstrations: length, perplexity, and few per problem.

STILL-2: longer thoughts are better (2.2.1), trajectories of higher perplexity under the current
model are harder and kept (2.3.2). `still_core.problems.difficulty` selects problems by pass rate.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from still_core.errors import DataError, explain
from still_core.refine.clean import Dropped, Refined, check_ids
from still_core.refine.funnel import Funnel
from still_core.refine.recipe import Direction, SelectRecipe
from still_core.responses.response import Demonstration


def select(demonstrations: Sequence[Demonstration], recipe: SelectRecipe) -> Refined:
    """Apply the recipe's criteria in the order length, perplexity, per problem.

    Shares are rounded up and ties are broken by id, so the result does not depend on row order.

    Args:
        demonstrations: clean rows.
        recipe: shares; those that select nothing add no step to the funnel.

    Raises:
        DataError: the recipe needs a perplexity that a row does not have.
    """
    rows = list(demonstrations)
    check_ids(rows)
    dropped: list[Dropped] = []
    funnel = Funnel()

    def take(step: str, lost: dict[int, tuple[str, float, float]]) -> None:
        nonlocal rows
        for i, (reason, measured, threshold) in sorted(lost.items()):
            dropped.append(
                Dropped(
                    row=rows[i], rule=step, reason=reason, measured=measured, threshold=threshold
                )
            )
        kept = [row for i, row in enumerate(rows) if i not in lost]
        funnel.step(step, len(kept), Counter(reason for reason, _, _ in lost.values()))
        rows = kept

    if recipe.length_share < 1.0:
        take("length", _tail(rows, thought_length, recipe.length_share, recipe.length_direction))
    if recipe.perplexity_share < 1.0:
        take(
            "perplexity",
            _tail(rows, _perplexity, recipe.perplexity_share, recipe.perplexity_direction),
        )
    if recipe.per_problem:
        take("per_problem", _surplus(rows, recipe))
    if not funnel.steps:
        funnel.step("select", len(rows), {})
    return Refined(kept=rows, dropped=dropped, funnel=funnel)


def thought_length(row: Demonstration) -> float:
    """Tokens of the thought where counted, else characters; a table uses one of the two."""
    return float(len(row.thought) if row.num_thought_tokens is None else row.num_thought_tokens)


def _perplexity(row: Demonstration) -> float:
    if row.perplexity is None or not math.isfinite(row.perplexity):
        raise DataError(
            explain(
                f"demonstration {row.id!r} has no perplexity",
                got=row.perplexity,
                remedy="score the demonstrations under the current model first",
            )
        )
    return row.perplexity


def _tail(
    rows: list[Demonstration],
    measure: Callable[[Demonstration], float],
    share: float,
    direction: Direction,
) -> dict[int, tuple[str, float, float]]:
    """Places that fall outside the kept share, with the value of the last kept row."""
    sign = -1.0 if direction is Direction.HIGHEST else 1.0
    values = [measure(row) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda i: (sign * values[i], rows[i].id))
    num_kept = math.ceil(share * len(rows) - 1e-9)
    reason = "too_low" if direction is Direction.HIGHEST else "too_high"
    return {i: (reason, values[i], values[ranked[num_kept - 1]]) for i in ranked[num_kept:]}


def _surplus(
    rows: list[Demonstration], recipe: SelectRecipe
) -> dict[int, tuple[str, float, float]]:
    """All but the longest few responses of each problem."""
    by_problem: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_problem[row.problem_digest].append(i)
    lost: dict[int, tuple[str, float, float]] = {}
    sign = -1.0 if recipe.length_direction is Direction.HIGHEST else 1.0
    for places in by_problem.values():
        ranked = sorted(places, key=lambda i: (sign * thought_length(rows[i]), rows[i].id))
        for rank, i in enumerate(ranked[recipe.per_problem :], recipe.per_problem + 1):
            lost[i] = ("surplus", float(rank), float(recipe.per_problem))
    return lost
