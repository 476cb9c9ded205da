"""Explore (STILL-2 section 2.3): roll out M_t on hard problems until one response is correct.

M_t, unsolved problems -> rollouts, verified as they finish -> bank -> what was found, scored
"""

from __future__ import annotations

from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.explore import explore_problems, score_candidates
from tasks.preferences import score_siblings
from tasks.problems import rate_problems, require_rated


def explorable(run: Run, recipe: Still2Recipe, problems: Handle, first_model: Handle) -> Handle:
    """The problems that rounds explore: all, or those that M_1 solves at times (STILL-3)."""
    if not recipe.pool.difficulty.attempts:
        return problems
    rated = rate_problems(
        store=run.store,
        problems=problems,
        policy=first_model,
        pool=recipe.pool,
        sampling=recipe.explore.sampling,
        engine=recipe.engine,
        verify=recipe.verify,
        prompt=recipe.backbone.prompt,
        seed=recipe.seed,
        policy_version=1,
        resources=run.resources,
        run=run.name,
    )
    require_rated(run.store, rated, recipe.pool.difficulty)
    return rated


@subflow(name="explore", run_name="explore-{round}-{run.name}")
def explore(
    run: Run,
    recipe: Still2Recipe,
    problems: Handle,
    policy: Handle,
    explorations: list[Handle],
    first_model: Handle,
    round: int,
) -> tuple[Handle, Handle]:
    """What M_t found in this round, and what of it the next model can learn from, with perplexity.

    For SFT these are the correct responses, scored by M_t; for DPO correct and wrong siblings,
    scored by M_1, from which DPO starts.
    """
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
    if recipe.self_improve.method == "dpo":
        siblings = score_siblings(
            label=f"round {round}",
            store=run.store,
            start=first_model,
            exploration=exploration,
            problems=problems,
            prompt=recipe.backbone.prompt,
            dtype=recipe.sft.dtype,
            round=round,
            resources=run.resources,
            run=run.name,
        )
        return exploration, siblings
    candidates = score_candidates(
        label=f"round {round}",
        store=run.store,
        policy=policy,
        exploration=exploration,
        problems=problems,
        prompt=recipe.backbone.prompt,
        dtype=recipe.sft.dtype,
        perplexity_source=recipe.select.perplexity_source,
        round=round,
        resources=run.resources,
        run=run.name,
    )
    return exploration, candidates
