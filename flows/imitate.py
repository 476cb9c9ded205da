"""Imitate (STILL-2 section 2.2): distil long thoughts, bring them into one form, clean and mix them.

distil -> drafts ─┬─ complete ──────────> solution writer (SFT of M_0)
                  └─ thought alone ─────> writer completes the solution
drafts + completed -> clean, mix -> D_0 -> SFT from M_0 -> M_1 -> evaluate
"""

from __future__ import annotations

from flows.run import Run
from flows.subflow import subflow
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.demonstrations import (
    build_d0,
    collect_writer_demonstrations,
    complete_solutions,
    distil_demonstrations,
    lack_solutions,
)
from tasks.train import train_model


@subflow(name="imitate", run_name="imitate-{run.name}")
def imitate(
    run: Run, recipe: Still2Recipe, problems: Handle, backbone: Handle, files: dict[str, str]
) -> tuple[Handle, Handle]:
    """D_0 and M_1."""
    drafts = distil_demonstrations(
        store=run.store,
        problems=problems,
        distil=recipe.distil,
        verify=recipe.verify,
        files=files,
        seed=recipe.seed,
        resources=run.resources,
    )
    completed = None
    if lack_solutions(run.store, drafts):
        formatted = collect_writer_demonstrations(
            store=run.store, drafts=drafts, clean=recipe.clean
        )
        writer = train_model(
            label="solution writer",
            store=run.store,
            model=backbone,
            demonstrations=formatted,
            prompt=recipe.backbone.prompt,
            sft=recipe.sft,
            seed=recipe.seed,
            resources=run.resources,
            run=run.name,
        )
        completed = complete_solutions(
            store=run.store,
            drafts=drafts,
            writer=writer,
            prompt=recipe.backbone.prompt,
            engine=recipe.engine,
            sampling=recipe.evaluate.sampling,
            verify=recipe.verify,
            seed=recipe.seed,
            resources=run.resources,
        )
    d0 = build_d0(
        store=run.store,
        drafts=drafts,
        completed=completed,
        problems=problems,
        backbone=backbone,
        clean=recipe.clean,
        mix=recipe.mix,
        seed=recipe.seed,
    )
    model = train_model(
        label="M_1",
        store=run.store,
        model=backbone,
        demonstrations=d0,
        prompt=recipe.backbone.prompt,
        sft=recipe.sft,
        seed=recipe.seed,
        resources=run.resources,
        run=run.name,
    )
    return d0, model
