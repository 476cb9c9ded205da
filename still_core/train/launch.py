"""Training jobs on Ray: one actor per rank, restarted together from the last whole checkpoint.

job -> published already? -> ranks started -> steps told -> parts of a checkpoint -> its index
                                    ^--------- a rank died or hung ---------'

Own actors and not Ray Train's TorchTrainer: measured on 2 cores (Ray 2.60), a job of one rank that
imports TRL starts in 3.6 s here and in 15 s there, and its steps can be told to the caller.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from still_core.errors import (
    CheckpointError,
    ConflictError,
    StillError,
    StoreError,
    TrainingError,
    explain,
)
from still_core.progress import Progress, ProgressListener
from still_core.store.handle import Handle
from still_core.train.checkpoint import (
    INDEX_FILE,
    Checkpoint,
    checkpoint_version,
    read_checkpoint,
)
from still_core.train.job import DpoJob, SftJob, folder_digest
from still_core.train.rank import Assignment, Event, PartPublished, StepDone, TrainingRank
from still_core.train.recipe import TrainResources

if TYPE_CHECKING:
    from still_core.store import Store

logger = logging.getLogger(__name__)
POLL_S = 0.2
DEATH_NOTICE_S = 10.0
"""Within which Ray tells of a dead actor."""


def run_job(
    job: SftJob | DpoJob, store: Store, *, progress: ProgressListener | None = None
) -> Handle:
    """Train and publish; the handle of the model.

    The same job published before is returned at once. A job that was cut off goes on from its last
    whole checkpoint.

    Raises:
        ConflictError: another job was published under this name and version.
        TrainingError: the ranks failed more often than the resources allow, or never started.
    """
    model_digest = job.model.digest if isinstance(job.model, Handle) else folder_digest(job.model)
    job_digest = job.digest(model_digest)
    published = store.find(job.name, job.version)
    if published is not None:
        return _same_job(store, published, job_digest)
    failures = 0
    while True:
        resume = latest_checkpoint(store, job, job_digest)
        attempt = _Attempt(job, store, (model_digest, job_digest), resume, progress)
        try:
            return attempt.run()
        except _RanksLost as lost:
            failures += 1
            # What fails by itself before its first step fails again: only lost ranks deserve more.
            hopeless = not lost.died and not attempt.took_steps
            if hopeless or failures > job.resources.max_failures:
                raise TrainingError(
                    explain(
                        f"training {job.name} failed, attempt {failures}",
                        got=str(lost),
                        remedy="see the logs of the ranks in Ray's session folder",
                    )
                ) from lost
            logger.warning("training %s: %s; going on from the last checkpoint", job.name, lost)


def latest_checkpoint(store: Store, job: SftJob | DpoJob, job_digest: str) -> Checkpoint | None:
    """The newest whole checkpoint of this very job, or None.

    A checkpoint that is refused (other job, damaged) is passed over for the one before it, with the
    reason logged.
    """
    name = job.checkpoints_name()
    handles = [h for h in store.list(name) if h.name == name]
    for handle in sorted(handles, key=lambda h: h.version, reverse=True):
        try:
            found = read_checkpoint(store, handle, job_digest=job_digest)
            for part in found.parts:
                store.fetch(part)
        except (CheckpointError, StoreError) as refused:
            logger.warning("checkpoint %s %s is not used: %s", handle.name, handle.version, refused)
            continue
        return found
    return None


class _RanksLost(Exception):
    """A rank died, hung or failed; the others were ended."""

    def __init__(self, why: str, *, died: bool) -> None:
        super().__init__(why)
        self.died = died


class _Attempt:
    """One life of all ranks together."""

    def __init__(
        self,
        job: SftJob | DpoJob,
        store: Store,
        digests: tuple[str, str],
        resume: Checkpoint | None,
        progress: ProgressListener | None,
    ) -> None:
        self.job, self.store = job, store
        self.model_digest, self.job_digest = digests
        self.resume, self.progress = resume, progress
        self.id = uuid.uuid4().hex[:8]
        self.parts: dict[int, dict[int, Handle]] = {}
        self.last_step_at = time.monotonic()
        self.took_steps = False

    def run(self) -> Handle:
        import ray

        actors, group = _start(self.job.resources)
        try:
            return self._follow(actors)
        except _RanksLost as lost:
            # The survivors of a dead rank fail in their next collective, often before the death is
            # known.
            lost.died = lost.died or _any_dead(actors)
            raise
        except ray.exceptions.RayActorError as error:
            raise _RanksLost(f"a rank died: {_first_line(error)}", died=True) from error
        finally:
            for actor in actors:
                ray.kill(actor)
            if group is not None:
                ray.util.remove_placement_group(group)

    def _follow(self, actors: list[Any]) -> Handle:
        """Hand out the work, then poll: finished ranks and events."""
        import ray

        resources = self.job.resources
        assignment = Assignment(
            job=self.job,
            job_digest=self.job_digest,
            model_digest=self.model_digest,
            store=self.store,
            num_ranks=resources.num_ranks,
            master=_first_address(actors, resources),
            attempt=self.id,
            resume=self.resume,
        )
        waiting = [actor.run.remote(assignment) for actor in actors]
        results: list[Handle | None] = []
        self.last_step_at = time.monotonic()
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
            results += [_result(ref) for ref in done]
            for events in ray.get([actor.drain.remote() for actor in actors]):
                for event in events:
                    self._take(event)
            if time.monotonic() - self.last_step_at > resources.stall_timeout_s:
                raise _RanksLost(f"no step for {resources.stall_timeout_s:.0f} s", died=True)
        model = next((result for result in results if result is not None), None)
        if model is None:
            raise TrainingError(explain("no rank published a model", got=self.job.name))
        return model

    def _take(self, event: Event) -> None:
        if isinstance(event, PartPublished):
            self._gather(event)
            return
        self.last_step_at, self.took_steps = time.monotonic(), True
        if self.progress is not None:
            self.progress(_as_progress(event))

    def _gather(self, event: PartPublished) -> None:
        """Publish a checkpoint's index once every rank's part is in the store."""
        parts = self.parts.setdefault(event.step, {})
        parts[event.rank] = event.part
        if len(parts) < self.job.resources.num_ranks:
            return
        index = Checkpoint(
            job_digest=self.job_digest,
            step=event.step,
            parts=tuple(parts[rank] for rank in sorted(parts)),
        )
        self.store.publish(
            self.job.checkpoints_name(),
            f"{checkpoint_version(event.step)}-{self.id}",
            {INDEX_FILE: index.to_json()},
            meta={
                "job_digest": self.job_digest,
                "step": event.step,
                "parents": [part.digest for part in index.parts],
            },
        )
        del self.parts[event.step]


def _any_dead(actors: list[Any]) -> bool:
    import ray

    try:
        ray.get([actor.drain.remote() for actor in actors], timeout=DEATH_NOTICE_S)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return True
    return False


def _start(resources: TrainResources) -> tuple[list[Any], Any]:
    """Start one actor per rank, all or none."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from still_core.rollout.cluster import connect

    connect()
    options: dict[str, Any] = {
        "num_cpus": resources.cpus_per_rank,
        "num_gpus": resources.gpus_per_rank,
        "max_concurrency": 2,
        "max_restarts": 0,
    }
    group = None
    if resources.num_ranks > 1:
        bundle = {"CPU": max(resources.cpus_per_rank, 0.01), "GPU": float(resources.gpus_per_rank)}
        bundle = {kind: amount for kind, amount in bundle.items() if amount}
        group = ray.util.placement_group([bundle] * resources.num_ranks, strategy="PACK")
        if not group.wait(resources.start_timeout_s):
            ray.util.remove_placement_group(group)
            raise _no_room(resources)
    remote = ray.remote(TrainingRank)
    actors = []
    for rank in range(resources.num_ranks):
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=rank
            )
        actors.append(remote.options(**options).remote(rank))
    return actors, group


def _first_address(actors: list[Any], resources: TrainResources) -> str:
    import ray

    try:
        return str(ray.get(actors[0].address.remote(), timeout=resources.start_timeout_s))
    except ray.exceptions.GetTimeoutError as error:
        raise _no_room(resources) from error


def _no_room(resources: TrainResources) -> TrainingError:
    import ray

    free = ray.available_resources()  # type: ignore[no-untyped-call]
    return TrainingError(
        explain(
            f"the cluster did not grant {resources.num_ranks} training ranks in time",
            got={kind: free.get(kind, 0.0) for kind in ("CPU", "GPU")},
            expected=f"{resources.cpus_per_rank} CPU and {resources.gpus_per_rank} GPU each",
            remedy="free resources or ask for fewer in the training resources",
        )
    )


def _result(ref: Any) -> Handle | None:
    """The value of a finished rank; our own errors as they were, others as a lost rank."""
    import ray

    try:
        result = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StillError):
            raise error.cause from None
        raise _RanksLost(f"a rank failed: {_first_line(error.cause)}", died=False) from error
    assert result is None or isinstance(result, Handle)
    return result


def _as_progress(event: StepDone) -> Progress:
    facts = {"tokens_per_s": event.tokens_per_s}
    facts |= {k: v for k, v in event.metrics.items() if k not in {"step", "tokens"}}
    return Progress(stage="train", done=event.step, total=event.total, unit="steps", facts=facts)


def _same_job(store: Store, published: Handle, job_digest: str) -> Handle:
    made_by = store.manifest(published).meta.get("job_digest")
    if made_by != job_digest:
        raise ConflictError(
            explain(
                f"model {published.name} {published.version} was made by another job",
                got=made_by,
                expected=job_digest,
                remedy="train under another name or version",
            )
        )
    return published


def _first_line(error: BaseException | None) -> str:
    """The gist of an error of Ray or torch, whose texts run over many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__
