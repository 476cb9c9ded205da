"""D_0 and D_t: the same strict rules over everything, every round, with exact accounts and lineage.

D_0:  drafts + completed drafts -> demonstrations -> clean -> mix
D_t:  D_0 + candidates of rounds 1..t -> clean -> select -> mix      (STILL-2 sections 2.2.1, 2.4)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from still_core.errors import DataError, explain
from still_core.refine.clean import Dropped, clean
from still_core.refine.funnel import Funnel
from still_core.refine.lineage import dropped_rows, rules_meta
from still_core.refine.mix import mix
from still_core.refine.recipe import CleanRecipe, MixRecipe, SelectRecipe
from still_core.refine.select import select
from still_core.responses.response import Demonstration, Origin
from still_core.store import Handle, Store
from still_core.store.tables import table_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A training set and the account of everything that did not enter it."""

    demonstrations: list[Demonstration]
    dropped: list[Dropped]
    funnel: Funnel
    groups: list[dict[str, Any]]
    """What the mixture took from each bucket or domain, with mean thought length."""


def build_d0(
    demonstrations: Sequence[Demonstration], clean_recipe: CleanRecipe, mix_recipe: MixRecipe
) -> Dataset:
    """Clean and mix what was distilled."""
    return _mixed(*_clean(demonstrations, clean_recipe), mix_recipe)


def refine_round(
    d0: Sequence[Demonstration],
    candidates: Sequence[Demonstration],
    clean_recipe: CleanRecipe,
    select_recipe: SelectRecipe,
    mix_recipe: MixRecipe,
) -> Dataset:
    """D_t: all rules again over D_0 and every candidate so far; only candidates are selected.

    Distilled demonstrations were selected once, into D_0; explored ones compete by length and by
    perplexity under the model that found them.
    """
    rows, dropped, funnel = _clean([*d0, *candidates], clean_recipe)
    explored = [row for row in rows if row.origin is Origin.EXPLORED]
    chosen = select(explored, select_recipe)
    lost = {one.row.id for one in chosen.dropped}
    kept = [row for row in rows if row.id not in lost]
    for step in chosen.funnel.steps:
        funnel.step(step.name, funnel.num_kept - sum(step.dropped.values()), step.dropped)
    return _mixed(kept, [*dropped, *chosen.dropped], funnel, mix_recipe)


def _clean(
    rows: Sequence[Demonstration], recipe: CleanRecipe
) -> tuple[list[Demonstration], list[Dropped], Funnel]:
    refined = clean(rows, recipe)
    return refined.kept, list(refined.dropped), refined.funnel


def _mixed(
    rows: list[Demonstration], dropped: list[Dropped], funnel: Funnel, recipe: MixRecipe
) -> Dataset:
    mixture = mix(rows, recipe)
    if not mixture.kept:
        steps = [*funnel.steps, *mixture.funnel.steps]
        reasons = ", ".join(f"{s.name}: {s.dropped}" for s in steps if s.dropped)
        raise DataError(
            explain(
                "no demonstration is left to train on", got=reasons, remedy="look at the funnel"
            )
        )
    return Dataset(
        demonstrations=mixture.kept,
        dropped=[*dropped, *mixture.dropped],
        funnel=funnel.extend(mixture.funnel),
        groups=[
            {
                "group": g.name,
                "weight": g.weight,
                "available": g.num_available,
                "taken": g.num_taken,
                "mean_thought_length": g.mean_thought_length,
            }
            for g in mixture.shares
        ],
    )


def count_thought_tokens(
    rows: Sequence[Demonstration], encode: Callable[[str], Sequence[int]]
) -> list[Demonstration]:
    """The rows with the length of each thought in tokens."""
    return [replace(row, num_thought_tokens=len(encode(row.thought))) for row in rows]


def publish_dataset(
    store: Store,
    name: str,
    version: str,
    dataset: Dataset,
    *,
    clean_recipe: CleanRecipe,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Handle:
    """Publish the rows as `data.parquet`, with funnel, dropped rows and mixture beside."""
    origins = [row.origin for row in dataset.demonstrations]
    contents = {
        "data": [row.to_row() for row in dataset.demonstrations],
        "funnel": dataset.funnel.to_rows(),
        "dropped": dropped_rows(dataset.dropped),
        "groups": dataset.groups,
        **(tables or {}),
    }
    meta = {
        "distilled": origins.count(Origin.DISTILLED),
        "explored": origins.count(Origin.EXPLORED),
        "rules": rules_meta(clean_recipe),
    }
    files = {f"{table}.parquet": table_bytes(rows) for table, rows in contents.items()}
    return store.publish(name, version, files, meta=meta)


def read_demonstrations(store: Store, handle: Handle) -> list[Demonstration]:
    """The rows of a published training set."""
    return [Demonstration.from_row(row) for row in store.read_rows(handle)]
