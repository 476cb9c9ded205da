"""Explore (STILL-2 section 2.3): roll out M_t on hard problems until one response is correct.

M_t, unsolved problems -> rollouts, verified as they finish -> bank -> candidates with perplexity
"""

from __future__ import annotations

from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.explore import explore_problems, score_candidates


@subflow(name="explore", run_name="explore-{round}-{run.name}")
def explore(
    run: Run,
    recipe: Still2Recipe,
    problems: Handle,
    policy: Handle,
    explorations: list[Handle],
    round: int,
) -> tuple[Handle, Handle]:
    """What M_t found in this round, and the correct responses as scored candidates."""
    exploration = explore_problems(
        label=f"round {round}",
        store=run.store,
        policy=policy,
        problems=problems,
        explorations=explorations,
        pool=recipe.pool,
        explore=recipe.explore,
        engine=recipe.engine,
        verify=recipe.verify,
        prompt=recipe.backbone.prompt,
        round=round,
        seed=recipe.seed,
        resources=run.resources,
        run=run.name,
    )
    candidates = score_candidates(
        label=f"round {round}",
        store=run.store,
        policy=policy,
        exploration=exploration,
        problems=problems,
        prompt=recipe.backbone.prompt,
        round=round,
    )
    return exploration, candidates
