"""Pairs for DPO: a correct response that the model finds hard against a wrong one it finds easy.

siblings of rounds 1..t -> strict rules over the correct ones -> pairs   (STILL-2 section 2.3.3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from still_core.errors import DataError, explain
from still_core.refine.clean import Dropped, clean
from still_core.refine.funnel import Funnel
from still_core.refine.lineage import dropped_rows, rules_meta
from still_core.refine.pairs import Pair, make_pairs
from still_core.refine.recipe import CleanRecipe, PairRecipe
from still_core.responses.response import Demonstration
from still_core.store import Handle, Store
from still_core.store.bundle import publish_tables
from still_core.verify.verdict import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """Pairs, and the account of every response that stands in none."""

    pairs: list[Pair]
    dropped: list[Dropped]
    """Correct responses that a rule dropped."""
    funnel: Funnel
    """Counts responses; two stand in each pair."""


def build_preferences(
    siblings: Sequence[Demonstration], clean_recipe: CleanRecipe, pair_recipe: PairRecipe
) -> Preferences:
    """Pair correct with wrong responses of the same problem.

    Only what the model is to learn goes through the rules: a wrong response may loop or be short.

    Raises:
        DataError: not one pair is left.
    """
    refined = clean([row for row in siblings if row.verdict == Outcome.CORRECT], clean_recipe)
    kept = {row.id for row in refined.kept}
    left = [row for row in siblings if row.verdict != Outcome.CORRECT or row.id in kept]
    paired = make_pairs(left, pair_recipe)
    funnel = Funnel()
    total = len(siblings)
    for step in refined.funnel.steps:
        total -= sum(step.dropped.values())
        funnel.step(step.name, total, step.dropped)
    funnel.extend(paired.funnel)
    if not paired.pairs:
        reasons = ", ".join(f"{s.name}: {s.dropped}" for s in funnel.steps if s.dropped)
        raise DataError(
            explain(
                "no pair of a correct and a wrong response is left to train on",
                got=reasons or "no problem with both",
                remedy="explore more problems or raise explore.max_attempts",
            )
        )
    return Preferences(pairs=paired.pairs, dropped=list(refined.dropped), funnel=funnel)


def publish_preferences(
    store: Store, name: str, version: str, preferences: Preferences, *, clean_recipe: CleanRecipe
) -> Handle:
    """Publish the pairs as `data.parquet`, with funnel and dropped responses beside."""
    tables: dict[str, list[dict[str, Any]]] = {
        "data": [pair.to_row() for pair in preferences.pairs],
        "funnel": preferences.funnel.to_rows(),
        "dropped": dropped_rows(preferences.dropped),
    }
    meta = {
        "method": "dpo",
        "explored": len(preferences.pairs),
        "rules": rules_meta(clean_recipe),
    }
    return publish_tables(store, name, version, tables, meta=meta)


def read_pairs(store: Store, handle: Handle) -> list[Pair]:
    """The pairs of a published set."""
    return [Pair.from_row(row) for row in store.read_rows(handle)]
