"""Imitate (STILL-2 section 2.2): distil long thoughts, unify, clean and mix them.

distil -> drafts ─┬─ complete ──────────> solution writer (SFT of M_0)
                  └─ thought alone ─────> writer completes the solution
drafts + completed -> clean, mix -> D_0 -> SFT from M_0 -> M_1 -> evaluate
"""

from __future__ import annotations

from flows.models import trained
from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.rollout.rollout import Sampling
from still_core.store.handle import Handle
from tasks.demonstrations import (
    build_d0,
    collect_writer_demonstrations,
    complete_solutions,
    distil_demonstrations,
    lack_solutions,
)


@subflow(name="imitate", run_name="imitate-{run.name}")
def imitate(
    run: Run,
    recipe: Still2Recipe,
    problems: Handle,
    fingerprints: Handle,
    backbone: Handle,
    teacher_files: dict[str, dict[str, str]],
) -> tuple[list[Handle], Handle, Handle]:
    """The drafts, D_0 and M_1."""
    drafts = distil_demonstrations(
        store=run.store,
        problems=problems,
        distil=recipe.distil,
        files=teacher_files,
        verify=recipe.verify,
        engine=recipe.engine,
        seed=recipe.seed,
        resources=run.resources,
        run=run.name,
    )
    completed = None
    if lack_solutions(run.store, drafts, recipe.distil):
        formatted = collect_writer_demonstrations(
            store=run.store, drafts=drafts, clean=recipe.clean, mix=recipe.mix
        )
        writer = trained(run, recipe, backbone, formatted, fingerprints, "solution writer")
        completed = complete_solutions(
            store=run.store,
            drafts=drafts,
            writer=writer,
            prompt=recipe.backbone.prompt,
            engine=recipe.engine,
            sampling=Sampling(
                temperature=0.0, top_p=1.0, max_tokens=recipe.distil.solution_max_tokens
            ),
            verify=recipe.verify,
            resources=run.resources,
            run=run.name,
        )
    d0 = build_d0(
        store=run.store,
        drafts=drafts,
        completed=completed,
        backbone=backbone,
        clean=recipe.clean,
        mix=recipe.mix,
    )
    model = trained(run, recipe, backbone, d0, fingerprints, "M_1")
    return [drafts] if completed is None else [drafts, completed], d0, model
