"""Train: SFT on demonstrations and DPO on pairs, as Ray jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from still_core.recipes.recipe import Resources
from still_core.store import Handle, Store
from still_core.train.job import TRAINING_VERSION
from still_core.train.recipe import DpoRecipe, SftRecipe
from tasks.artifacts import Shown, table
from tasks.engines import make_room
from tasks.listening import listener
from tasks.stage import stage

MAX_CURVE_ROWS = 100


def show_training(store: Store, model: Handle) -> Iterator[Shown]:
    """The training curve, thinned to what a person reads."""
    lines = store.read_bytes(model, "metrics.jsonl").decode().splitlines()
    metrics = [json.loads(line) for line in lines]
    every = max(1, len(metrics) // MAX_CURVE_ROWS)
    yield table("training-curve", metrics[::every], "Loss, learning rate and tokens per step")


@stage(version="2026.11.22", uses=(TRAINING_VERSION,), show=show_training)
def train_model(
    store: Store,
    version: str,
    *,
    model: Handle,
    demonstrations: Handle,
    prompt: str,
    sft: SftRecipe,
    seed: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Fine-tune `model` on the demonstrations, loss on the response alone; returns the result."""
    from still_core.train import SftJob, train

    job = SftJob(
        model=model,
        demonstrations=demonstrations,
        prompt=prompt,
        sft=sft,
        seed=seed,
        resources=resources.train,
        name="train-model",
        version=version,
    )
    make_room(resources)
    return train(job, store, progress=listener(store, run), keep_rank=True)


@stage(version="2026.11.22", uses=(TRAINING_VERSION,), show=show_training)
def align_model(
    store: Store,
    version: str,
    *,
    model: Handle,
    pairs: Handle,
    prompt: str,
    dpo: DpoRecipe,
    seed: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Optimise `model`'s preference for the chosen response of each pair; returns the new model.

    Its reference is `model` itself.
    """
    from still_core.train import DpoJob, train

    job = DpoJob(
        model=model,
        pairs=pairs,
        prompt=prompt,
        dpo=dpo,
        seed=seed,
        resources=resources.train,
        name="align-model",
        version=version,
    )
    make_room(resources)
    return train(job, store, progress=listener(store, run), keep_rank=True)
