"""Mixing by weights over difficulty buckets or domains (STILL-2 section 2.2.1 and Table 3).

demonstrations -> quotas by largest remainder -> seeded choice per group -> Mixture

Which rows are chosen depends on the seed and on the rows' ids, not on their order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from still_core.errors import DataError, explain
from still_core.identity import digest
from still_core.refine.clean import Dropped, check_ids
from still_core.refine.funnel import Funnel
from still_core.refine.recipe import MixRecipe
from still_core.refine.select import thought_length
from still_core.responses.response import Demonstration


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupShare:
    """One bucket or domain of a mixture."""

    name: str
    weight: float
    num_available: int
    num_taken: int
    mean_thought_length: float
    """Tokens where counted, else characters; 0 where nothing was taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A mixed set, ordered by a seeded shuffle, with what each group gave to it."""

    kept: list[Demonstration]
    dropped: list[Dropped]
    shares: list[GroupShare]
    funnel: Funnel


def mix(demonstrations: Sequence[Demonstration], recipe: MixRecipe) -> Mixture:
    """Choose rows so that the groups stand in the recipe's proportions.

    Raises:
        DataError: ids repeat, or no row belongs to a group with a weight.
    """
    rows = list(demonstrations)
    check_ids(rows)
    groups: dict[str, list[Demonstration]] = defaultdict(list)
    for row in rows:
        groups[str(getattr(row, recipe.by))].append(row)
    available = {name: len(groups.get(name, [])) for name in sorted(recipe.weights)}
    if rows and not any(available[name] for name, w in recipe.weights.items() if w > 0):
        raise DataError(
            explain(
                "no demonstration belongs to the mixture",
                got=sorted(groups),
                expected=", ".join(sorted(recipe.weights)),
            )
        )
    quotas = plan_quotas(available, recipe)
    chosen: set[str] = set()
    for name, quota in quotas.items():
        ranked = sorted(groups.get(name, []), key=lambda row: digest([recipe.seed, row.id]))
        chosen.update(row.id for row in ranked[:quota])
    kept = sorted(
        (row for row in rows if row.id in chosen),
        key=lambda row: digest([recipe.seed, "order", row.id]),
    )
    dropped = [_dropped(row, recipe, quotas) for row in rows if row.id not in chosen]
    funnel = Funnel().step("mix", len(kept), Counter(one.reason for one in dropped))
    return Mixture(
        kept=kept,
        dropped=dropped,
        shares=[_share(name, recipe, available[name], kept) for name in quotas],
        funnel=funnel,
    )


def plan_quotas(available: Mapping[str, int], recipe: MixRecipe) -> dict[str, int]:
    """How many rows each group gives, by largest remainder.

    Groups that run short are filled from the others (`fill`), or leave the mixture smaller. With no
    target size, `fill` takes every row; without it the group that is scarcest for its weight gives
    all it has, and the others stand in proportion to it.
    """
    weights = {name: w for name, w in sorted(recipe.weights.items()) if w > 0}
    total = sum(weights.values())
    present = {name: w for name, w in weights.items() if available.get(name, 0)}
    size = recipe.target_size
    if not size and recipe.fill:
        size = sum(available[name] for name in present)
    elif not size:
        size = int(min(available.get(n, 0) * total / w for n, w in weights.items()) + 1e-9)
    quotas = _largest_remainder({n: w / total * size for n, w in weights.items()}, size)
    quotas = {n: min(q, available.get(n, 0)) for n, q in quotas.items()}
    while recipe.fill and sum(quotas.values()) < size:
        room = {n: w for n, w in present.items() if quotas[n] < available[n]}
        if not room:
            break
        missing = size - sum(quotas.values())
        share = sum(room.values())
        extra = _largest_remainder({n: w / share * missing for n, w in room.items()}, missing)
        quotas |= {n: min(quotas[n] + extra[n], available[n]) for n in room}
    return {name: quotas.get(name, 0) for name in sorted(recipe.weights)}


def _largest_remainder(ideal: Mapping[str, float], size: int) -> dict[str, int]:
    """Whole numbers that add up to `size` and lie nearest below or above their ideal."""
    whole = {name: int(value + 1e-9) for name, value in ideal.items()}
    rest = sorted(ideal, key=lambda name: (-(ideal[name] - whole[name]), name))
    for name in rest[: size - sum(whole.values())]:
        whole[name] += 1
    return whole


def _dropped(row: Demonstration, recipe: MixRecipe, quotas: Mapping[str, int]) -> Dropped:
    group = str(getattr(row, recipe.by))
    weight = recipe.weights.get(group, 0.0)
    reason = "over_quota" if weight > 0 else "no_weight"
    return Dropped(
        row=row,
        rule="mix",
        reason=reason,
        measured=weight,
        threshold=float(quotas.get(group, 0)),
        detail=group,
    )


def _share(
    name: str, recipe: MixRecipe, available: int, kept: Sequence[Demonstration]
) -> GroupShare:
    taken = [row for row in kept if str(getattr(row, recipe.by)) == name]
    return GroupShare(
        name=name,
        weight=recipe.weights[name],
        num_available=available,
        num_taken=len(taken),
        mean_thought_length=_mean(taken),
    )


def _mean(rows: Sequence[Demonstration]) -> float:
    if not rows:
        return 0.0
    if any(row.num_thought_tokens is None for row in rows):
        return sum(len(row.thought) for row in rows) / len(rows)
    return sum(thought_length(row) for row in rows) / len(rows)
