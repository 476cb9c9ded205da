"""Self-improve (STILL-2 sections 2.3.2 and 2.3.3): refine what was found, train on all of it.

sft: D_0 + candidates of rounds 1..t -> the same strict rules -> D_t -> SFT from M_0 -> M_{t+1}
dpo: siblings of rounds 1..t -> pairs, correct and hard > wrong and easy -> DPO from M_1 -> M_{t+1}
"""

from __future__ import annotations

from flows.models import aligned, trained
from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.demonstrations import refine_demonstrations
from tasks.preferences import build_pairs


@subflow(name="self-improve", run_name="self-improve-{round}-{run.name}")
def self_improve(
    run: Run,
    recipe: Still2Recipe,
    fingerprints: Handle,
    d0: Handle,
    found: list[Handle],
    models: list[Handle],
    round: int,
) -> tuple[Handle, Handle]:
    """The data of this round and M_{t+1}; `models` are M_0 to M_t."""
    if recipe.self_improve.method == "dpo":
        return _by_preference(run, recipe, fingerprints, found, models[1], round)
    demonstrations = refine_demonstrations(
        label=f"D_{round}",
        store=run.store,
        d0=d0,
        candidates=found,
        clean=recipe.clean,
        select=recipe.select,
        mix=recipe.mix,
        round=round,
    )
    start = models[0] if recipe.start_from == "backbone" else models[-1]
    model = trained(run, recipe, start, demonstrations, fingerprints, f"M_{round + 1}")
    return demonstrations, model


def _by_preference(
    run: Run,
    recipe: Still2Recipe,
    fingerprints: Handle,
    found: list[Handle],
    first_model: Handle,
    round: int,
) -> tuple[Handle, Handle]:
    """Pairs of all rounds so far, and the model that DPO makes of M_1 on them."""
    pairs = build_pairs(
        label=f"after round {round}",
        store=run.store,
        siblings=found,
        clean=recipe.clean,
        pairs=recipe.self_improve.pairs,
    )
    return pairs, aligned(run, recipe, first_model, pairs, fingerprints, f"M_{round + 1}")
