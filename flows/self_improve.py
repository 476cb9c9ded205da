"""Self-improve (STILL-2 section 2.4): refine what was found, train the backbone again on all of it.

D_0 + candidates of rounds 1..t -> the same strict rules -> D_t -> SFT from M_0 -> M_{t+1}
"""

from __future__ import annotations

from flows.models import trained
from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.demonstrations import refine_demonstrations


@subflow(name="self-improve", run_name="self-improve-{round}-{run.name}")
def self_improve(
    run: Run,
    recipe: Still2Recipe,
    fingerprints: Handle,
    d0: Handle,
    candidates: list[Handle],
    start: Handle,
    round: int,
) -> tuple[Handle, Handle]:
    """D_t and M_{t+1}, trained from `start`: M_0, or M_t where the recipe asks for that control."""
    demonstrations = refine_demonstrations(
        label=f"D_{round}",
        store=run.store,
        d0=d0,
        candidates=candidates,
        clean=recipe.clean,
        select=recipe.select,
        mix=recipe.mix,
        round=round,
    )
    model = trained(run, recipe, start, demonstrations, fingerprints, f"M_{round + 1}")
    return demonstrations, model
