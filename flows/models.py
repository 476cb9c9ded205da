"""The two things that every model of a run goes through: training and evaluation."""

from __future__ import annotations

from flows.run import Run
from still_core.recipes.recipe import Still2Recipe
from still_core.store.handle import Handle
from tasks.evaluate import evaluate_model
from tasks.gate import gate_demonstrations, gate_pairs
from tasks.train import align_model, train_model


def trained(
    run: Run,
    recipe: Still2Recipe,
    start: Handle,
    demonstrations: Handle,
    fingerprints: Handle,
    label: str,
) -> Handle:
    """The model that SFT makes of `start` on the demonstrations, past the decontamination gate."""
    gate_demonstrations(
        label=label,
        store=run.store,
        demonstrations=demonstrations,
        fingerprints=fingerprints,
        gate=recipe.problems.decontaminate,
    )
    return train_model(
        label=label,
        store=run.store,
        model=start,
        demonstrations=demonstrations,
        prompt=recipe.backbone.prompt,
        sft=recipe.sft,
        seed=recipe.seed,
        resources=run.resources,
        run=run.name,
    )


def aligned(
    run: Run,
    recipe: Still2Recipe,
    start: Handle,
    pairs: Handle,
    fingerprints: Handle,
    label: str,
) -> Handle:
    """The model that DPO makes of `start` on the pairs, past the decontamination gate."""
    gate_pairs(
        label=label,
        store=run.store,
        pairs=pairs,
        fingerprints=fingerprints,
        gate=recipe.problems.decontaminate,
    )
    return align_model(
        label=label,
        store=run.store,
        model=start,
        pairs=pairs,
        prompt=recipe.backbone.prompt,
        dpo=recipe.self_improve.dpo,
        seed=recipe.seed,
        resources=run.resources,
        run=run.name,
    )


def evaluated(
    run: Run, recipe: Still2Recipe, problems: Handle, model: Handle, number: int
) -> Handle:
    """The verified answers of M_`number` to every benchmark."""
    return evaluate_model(
        label=f"M_{number}",
        store=run.store,
        model=model,
        problems=problems,
        evaluate=recipe.evaluate,
        engine=recipe.engine,
        verify=recipe.verify,
        prompt=recipe.backbone.prompt,
        seed=recipe.seed,
        policy_version=number,
        resources=run.resources,
        run=run.name,
    )
