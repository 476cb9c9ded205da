"""What makes a function a stage: a cached Prefect task whose result is a handle in the store.

    inputs that define the result -> key -> (hit: the stored handle | miss: run, publish, record)

The cache key is task name / stage version / hash of the inputs. Inputs named in `NOT_IDENTITY`
(where the store is, how many workers run, which run asks) can not change a result and stay out of
it. A handle counts by its content digest, so a parent made again with equal bytes changes nothing.
Prefect's `TASK_SOURCE` does not see edits in `still_core`, so each stage states its version: bump
it when its results would change. Versions that `still_core` keeps itself (of the verifier, the
cleaning rules, training) are named in `uses` and are part of the key.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Task, get_client, task
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext
from prefect.transactions import IsolationLevel

from still_core.errors import (
    ConflictError,
    CorruptionError,
    RolloutError,
    StalledError,
    StoreError,
    VerifierError,
)
from still_core.heartbeat import heartbeats_of_stage
from still_core.identity import canonical, digest
from still_core.store import Handle, Store
from still_core.watchdog import watched
from tasks.artifacts import Shown
from tasks.planning import PlannedStage, current_plan, is_pending, pending
from tasks.records import StageKey, StageLocks, StageRecords
from tasks.runlog import StageRun, record_stage

NOT_IDENTITY = frozenset({"store", "resources", "run", "policy_version"})
"""Parameters that say where, on what and for whom a stage runs, not what it computes."""


DEFAULT_STALL_S = 7_200.0
"""Longer than any worker's own limits, so that lost workers are replaced before the stage ends."""


def identity_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that define a stage's result as plain JSON; handles by name and digest."""
    return {
        name: _plain(value) for name, value in sorted(inputs.items()) if name not in NOT_IDENTITY
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Handle):
        return {"name": value.name, "digest": value.digest}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    return canonical(value)


def handles_of(value: Any) -> list[Handle]:
    """The handles in a stage's input, in order."""
    if isinstance(value, Handle):
        return [value]
    if isinstance(value, list | tuple):
        return [handle for item in value for handle in handles_of(item)]
    return []


_stall_limit_s: ContextVar[float] = ContextVar("stall_limit_s", default=DEFAULT_STALL_S)


@contextmanager
def stall_limit(seconds: float) -> Iterator[None]:
    """Stages called inside the block are ended when they show no progress for so long."""
    token = _stall_limit_s.set(seconds)
    try:
        yield
    finally:
        _stall_limit_s.reset(token)


class StageStore(Store):
    """The store as one stage's body sees it: all that it publishes names the stage's inputs.

    `meta["parents"]` is what `still lineage` follows. A copy that travels to another process is a
    plain `Store`; what a training job publishes from there names its parents itself.
    """

    def __init__(self, root: str, inputs: Mapping[str, Any]) -> None:
        super().__init__(root)
        handles = (handle for value in inputs.values() for handle in handles_of(value))
        self._parents = sorted({handle.digest for handle in handles})

    def publish(
        self,
        name: str,
        version: str,
        files: Mapping[str, Path | bytes],
        *,
        meta: Mapping[str, Any] | None = None,
        first_wins: bool = True,
    ) -> Handle:
        """As `Store.publish`, with the parents in `meta` unless it names its own."""
        meta = {"parents": self._parents, **(meta or {})}
        return super().publish(name, version, files, meta=meta, first_wins=first_wins)


def stage_version(version: str, uses: Iterable[str], inputs: Mapping[str, Any]) -> str:
    """What a stage's artefact is published under: its version and the hash of all it hangs on."""
    identity = identity_of(inputs)
    return f"{version}-{digest([*uses, identity] if uses else identity)}"


class Stage:
    """One stage of the DAG; call it with keyword arguments inside a flow to get its handle.

    Args:
        body: a function `(store: Store, version: str, **inputs) -> Handle` that publishes under
            (its stage's name, `version`).
        show: what teammates look at, made from the stored artefact, so that cached runs show it.
    """

    def __init__(
        self,
        body: Callable[..., Handle],
        *,
        name: str,
        version: str,
        uses: tuple[str, ...],
        show: Callable[[Store, Handle], Iterable[Shown]] | None,
        retries: int,
        timeout_s: float | None,
    ) -> None:
        functools.update_wrapper(self, body)
        self.name, self.version, self.uses, self.show = name, version, uses, show
        self._names = [
            n for n in inspect.signature(body).parameters if n not in ("store", "version")
        ]

        def run(store: str, inputs: dict[str, Any], limit_s: float) -> dict[str, str]:
            published = StageStore(store, inputs)
            with heartbeats_of_stage(), watched(f"stage {name}", limit_s):
                handle = body(published, self.version_of(inputs), **inputs)
            return handle.to_json()

        self.task: Task[..., dict[str, str]] = task(
            name=name,
            description=inspect.getdoc(body),
            persist_result=True,
            result_serializer="json",
            retries=retries,
            retry_delay_seconds=5,
            retry_condition_fn=lambda _, __, state: may_pass(state.result(raise_on_failure=False)),
            timeout_seconds=timeout_s,
        )(run)

    def version_of(self, inputs: Mapping[str, Any]) -> str:
        """The artefact version that these inputs lead to; no part of it depends on the store."""
        return stage_version(self.version, self.uses, inputs)

    def _planned(
        self, plan: list[PlannedStage], store: Store, label: str, inputs: dict[str, Any]
    ) -> Handle:
        handle = None
        if not any(is_pending(value) for value in inputs.values()):
            handle = store.find(self.name, self.version_of(inputs))
        cached = handle is not None and store.exists(handle)
        reads = tuple(h.name for value in inputs.values() for h in handles_of(value))
        plan.append(PlannedStage(name=label, cached=cached, reads=reads))
        return handle if handle is not None and cached else pending(label)

    def __call__(self, *, store: str, label: str = "", **inputs: Any) -> Handle:
        """Run the stage, or take its stored result; show its artefacts either way."""
        inputs = self._checked(inputs)
        plan = current_plan()
        if plan is not None:
            return self._planned(plan, Store(store), f"{self.name} {label}".strip(), inputs)
        key = f"{self.name}/{self.version_of(inputs)}"
        bound = self.task.with_options(
            task_run_name=f"{self.name} {label}".strip(),
            result_storage=StageRecords.at(store),
            cache_policy=StageKey(
                key=key,
                lock_manager=StageLocks(store),
                isolation_level=IsolationLevel.SERIALIZABLE,
            ),
        )
        began = time.monotonic()
        run: Any = bound
        state = run(store, inputs, _stall_limit_s.get(), return_state=True)
        handle = Handle(**state.result())
        record_stage(
            StageRun(
                name=f"{self.name} {label}".strip(),
                seconds=time.monotonic() - began,
                cached=state.name == "Cached",
            )
        )
        if self.show is not None:
            publish_shown(self.show(Store(store), handle), state.state_details.task_run_id, label)
        return handle

    def _checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        unknown, missing = set(inputs) - set(self._names), set(self._names) - set(inputs)
        if unknown or missing:
            raise TypeError(
                f"stage {self.name}: unknown {sorted(unknown)}, missing {sorted(missing)}"
            )
        return inputs


def stage(
    *,
    version: str,
    uses: tuple[str, ...] = (),
    show: Callable[[Store, Handle], Iterable[Shown]] | None = None,
    retries: int = 1,
    timeout_s: float | None = None,
) -> Callable[[Callable[..., Handle]], Stage]:
    """Make a function a stage named after itself, e.g. `train_model` -> `train-model`.

    Args:
        version: bumped when the stage would publish something else for the same inputs.
        uses: versions of the parts of `still_core` that decide what it publishes.
        show: see `Stage`.
        retries: after a failure that may pass, see `may_pass`.
        timeout_s: longest time of one try.
    """

    def wrap(body: Callable[..., Handle]) -> Stage:
        name = body.__name__.replace("_", "-")
        return Stage(
            body,
            name=name,
            version=version,
            uses=uses,
            show=show,
            retries=retries,
            timeout_s=timeout_s,
        )

    return wrap


def may_pass(error: BaseException) -> bool:
    """Whether trying again can help: after a lost node or connection, or work that stood still.

    A verifier that fails is one whose process did not start.

    A mistake fails twice, and a training job has spent its own restarts.
    """
    if isinstance(error, ConflictError | CorruptionError):
        return False
    ray = sys.modules.get("ray")
    lost: tuple[type[BaseException], ...] = (ray.exceptions.RayError,) if ray else ()
    passing = (OSError, StoreError, RolloutError, StalledError, VerifierError)
    return isinstance(error, (*passing, *lost))


def publish_shown(shown: Iterable[Shown], task_run_id: Any, label: str) -> None:
    """Put artefacts on the task run in the Prefect UI, also when the run was a cache hit."""
    context = FlowRunContext.get()
    flow_run_id = context.flow_run.id if context and context.flow_run else None
    with get_client(sync_client=True) as client:
        for item in shown:
            client.create_artifact(
                ArtifactCreate(
                    key=item.key_for(label),
                    type=item.type,
                    description=item.description,
                    data=item.data,
                    task_run_id=task_run_id,
                    flow_run_id=flow_run_id,
                )
            )
