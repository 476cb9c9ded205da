"""Training: SFT and DPO as Ray jobs with exact resume, and the memory plan of a launch.

Light to import: the heavy parts load inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.train.job import DpoJob, SftJob
from still_core.train.memory import MemoryPlan, plan_memory
from still_core.train.recipe import DpoRecipe, DpoTarget, SftRecipe, TrainResources

if TYPE_CHECKING:
    from still_core.progress import ProgressListener
    from still_core.store import Store
    from still_core.store.handle import Handle

__all__ = [
    "DpoJob",
    "DpoRecipe",
    "DpoTarget",
    "MemoryPlan",
    "SftJob",
    "SftRecipe",
    "TrainResources",
    "plan_memory",
    "train",
]


def train(
    job: SftJob | DpoJob,
    store: Store,
    *,
    progress: ProgressListener | None = None,
    keep_rank: bool = False,
) -> Handle:
    """Train by TRL's SFTTrainer or DPOTrainer on Ray; the handle of the new model.

    See `still_core.train.launch.run_job` for the arguments, resuming and errors.
    """
    from still_core.train.launch import run_job

    return run_job(job, store, progress=progress, keep_rank=keep_rank)
