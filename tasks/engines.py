"""Workers belong to the run: the first stage that needs an engine or a rank starts it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from still_core.progress import ProgressListener
from still_core.recipes.recipe import Resources
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.rollout.recipe import EngineRecipe
from still_core.store import Handle, Store
from still_core.verify.recipe import VerifyRecipe

if TYPE_CHECKING:
    from still_core.problems.problem import Problem
    from still_core.problems.raw import RawResponse
    from still_core.rollout.pool import RolloutPool
    from still_core.verify import VerifierPool


_inside: ContextVar[bool] = ContextVar("inside the workers of a run", default=False)


@contextmanager
def workers_of_run() -> Iterator[None]:
    """End what stages inside the block left up: engines, and a rank for the next training job.

    Of nested blocks the outermost ends them, so that several runs in one process share them. Costs
    nothing when all was cached.
    """
    if _inside.get():
        yield
        return
    outside = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(outside)
        if (pools := sys.modules.get("still_core.rollout.pool")) is not None:
            pools.close_pools()
        if (launch := sys.modules.get("still_core.train.launch")) is not None:
            launch.end_ranks()


def make_room(resources: Resources) -> None:
    """Let rollout engines give their GPUs up where a training job's ranks do not find enough.

    Engines on CPU stay warm: ranks get cores of their own (`still_core.rollout.cluster.connect`).
    """
    pools, ray = sys.modules.get("still_core.rollout.pool"), sys.modules.get("ray")
    if pools is None or ray is None or not ray.is_initialized():
        return
    wanted = resources.train.num_ranks * resources.train.gpus_per_rank
    if wanted > ray.available_resources().get("GPU", 0.0):
        pools.release_gpus()


def rollout_pool(
    store: Store,
    model: Handle,
    engine: EngineRecipe,
    resources: Resources,
    *,
    policy_version: int = -1,
) -> RolloutPool:
    """The run's engines with this model's weights loaded.

    Args:
        store: where the model is.
        model: what is loaded.
        engine: how it is run.
        resources: workers, their CPUs and GPUs.
        policy_version: t of the loop's M_t; -1 for a model that is none of them.
    """
    from still_core.rollout.pool import acquire_pool

    return acquire_pool(
        store.fetch(model),
        engine,
        resources.rollout,
        policy_version=policy_version,
        handle=model,
        store_uri=store.root,
    )


def verifier_pool(verify: VerifyRecipe, resources: Resources) -> VerifierPool:
    """Verifier processes for one stage; a context manager."""
    from still_core.verify import VerifierPool

    return VerifierPool(
        workers=resources.verify_workers,
        deadline_s=verify.deadline_s,
        conventions=verify.conventions,
    )


def ask_teacher(
    store: Store,
    teacher: Teacher,
    distil: DistilRecipe,
    problems: Sequence[Problem],
    engine: EngineRecipe,
    verifier: VerifierPool,
    resources: Resources,
    *,
    seed: int,
    progress: ProgressListener | None = None,
) -> list[RawResponse]:
    """A live teacher's responses; what the bank has is not asked again.

    Raises:
        ConfigError: an endpoint without an address, a local model that is not there.
        RolloutError: the endpoint or the engine can not go on.
    """
    from still_core.distil.teachers import Question, draw_responses, endpoint_pool
    from still_core.rollout.bank import RolloutBank
    from still_core.rollout.pool import acquire_pool
    from still_core.train.model_folder import model_folder

    remote = teacher.kind == "endpoint"
    with (
        endpoint_pool(teacher, resources.rollout)
        if remote
        # In place of the run's own engines, which would keep its GPUs from it.
        else nullcontext(acquire_pool(model_folder(teacher.source), engine, resources.rollout))
    ) as pool:
        return draw_responses(
            teacher,
            distil,
            problems,
            pool,
            RolloutBank(store),
            verifier,
            prompt=Question() if remote else "bare",
            seed=seed,
            progress=progress,
        )
