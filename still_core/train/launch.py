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
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from still_core.errors import (
    CheckpointError,
    ConflictError,
    CorruptionError,
    MissingError,
    StillError,
    TrainingError,
    explain,
)
from still_core.heartbeat import WorkerState, forget_workers, watch_workers
from still_core.progress import Progress, ProgressListener
from still_core.rollout.cluster import ActorPlace, connect, end_actors, gist
from still_core.stacks import innermost_frame
from still_core.store.handle import Handle
from still_core.train.checkpoint import (
    INDEX_FILE,
    Checkpoint,
    DamagedCheckpoint,
    checkpoint_version,
    forget_checkpoints,
    read_checkpoint,
)
from still_core.train.job import DpoJob, SftJob, folder_digest
from still_core.train.rank import (
    Assignment,
    Event,
    PartPublished,
    ReferenceForward,
    StepDone,
    TrainingRank,
)
from still_core.train.recipe import TrainResources
from still_core.train.rows import check_table

if TYPE_CHECKING:
    from still_core.store import Store

logger = logging.getLogger(__name__)
POLL_S = 0.2
DEATH_NOTICE_S = 10.0
"""Within which Ray tells of a dead actor."""

_kept: dict[tuple[str, TrainResources], tuple[Any, ActorPlace]] = {}
"""The one rank that stays up for the next job, by Ray node and the resources that it holds; see
`end_ranks`."""


def run_job(
    job: SftJob | DpoJob,
    store: Store,
    *,
    progress: ProgressListener | None = None,
    keep_rank: bool = False,
) -> Handle:
    """Train and publish; the handle of the model.

    The same job published before is returned at once. A job that was cut off goes on from its last
    whole checkpoint. Once the model is published, its checkpoints are forgotten.

    Args:
        job: what to train.
        store: where its inputs are and the model goes.
        progress: told of every step.
        keep_rank: leave a single rank on CPU up for the next job, until `end_ranks`; importing TRL
            anew takes it 5 s. A rank on a GPU always ends: its memory is wanted elsewhere.

    Raises:
        ConflictError: another job was published under this name and version.
        DataError: the table has a row that can not be trained on, or none that can.
        TrainingError: the ranks failed more often than the resources allow, or never started.
        StoreError: the store fails for now; whole checkpoints in it stay for the next try.
    """
    model_digest = job.model.digest if isinstance(job.model, Handle) else folder_digest(job.model)
    job_digest = job.digest(model_digest)
    published = store.find(job.name, job.version)
    if published is not None and not store.exists(published):
        published = None  # a file of it is lost: the one made anew is published in its place
    if published is not None:
        model = _same_job(store, published, job_digest)
        forget_checkpoints(store, job.checkpoints_name(), newest=0)
        return model
    # Before any rank starts, let alone reads its weights.
    check_table(store.read_rows(job.data), pairs=isinstance(job, DpoJob))
    failures, failure = 0, ""
    unused: frozenset[str] = frozenset()
    while True:
        latest = latest_checkpoint(store, job, job_digest, unused=unused)
        unused = latest.unused
        digests = (model_digest, job_digest)
        attempt = _Attempt(
            job, store, digests, latest.checkpoint, unused, progress, failures, failure, keep_rank
        )
        try:
            model = attempt.run()
        except DamagedCheckpoint as damaged:
            _warn_of_unused(job, latest.version, damaged)
            unused |= {latest.version}
        except _RanksLost as lost:
            failures, failure = failures + 1, str(lost)
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
        else:
            forget_checkpoints(store, job.checkpoints_name(), newest=0)
            return model


class Latest(NamedTuple):
    """Where a job goes on."""

    checkpoint: Checkpoint | None
    """None: at its first step."""
    version: str
    """Of the checkpoint in the store; empty where there is none."""
    unused: frozenset[str]
    """Versions that were passed over."""


def latest_checkpoint(
    store: Store, job: SftJob | DpoJob, job_digest: str, *, unused: frozenset[str] = frozenset()
) -> Latest:
    """The newest whole checkpoint of this very job; its parts are not read.

    A checkpoint that is refused (other job, a file lost or damaged) is passed over for the one
    before it, with the reason logged.

    Args:
        store: where the checkpoints are.
        job: what they are of.
        job_digest: its identity.
        unused: versions that were refused before.

    Raises:
        StoreError: the store fails for now: to go on without a checkpoint that it may hold would
            repeat what was paid for.
    """
    name = job.checkpoints_name()
    for version in reversed(store.versions(name)):
        if version in unused:
            continue
        try:
            handle = store.find(name, version)
            if handle is None:  # forgotten meanwhile
                continue
            found = read_checkpoint(store, handle, job_digest=job_digest)
        except (CheckpointError, MissingError, CorruptionError) as refused:
            _warn_of_unused(job, version, refused)
            unused |= {version}
            continue
        return Latest(found, version, unused)
    return Latest(None, "", unused)


def _warn_of_unused(job: SftJob | DpoJob, version: str, reason: StillError) -> None:
    logger.warning("checkpoint %s %s is not used: %s", job.checkpoints_name(), version, reason)


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
        unused: frozenset[str],
        progress: ProgressListener | None,
        restarts: int,
        last_failure: str,
        keep_rank: bool,
    ) -> None:
        self.job, self.store = job, store
        self.keep_rank = keep_rank and _may_stay(job.resources)
        self.model_digest, self.job_digest = digests
        self.resume, self.unused, self.progress = resume, unused, progress
        self.id = uuid.uuid4().hex[:8]
        self.parts: dict[int, dict[int, Handle]] = {}
        self.last_step_at = time.monotonic()
        self.took_steps = False
        self.save_blocked_s = 0.0
        """Longest stop of any rank for a checkpoint; 0 before the first one."""
        self.restarts, self.last_failure = restarts, last_failure
        self.places: list[ActorPlace] = []

    def run(self) -> Handle:
        import ray

        actors, group = _start(self.job.resources)
        watch_workers(self.id, self._ranks)
        try:
            model = self._follow(actors)
            if self.keep_rank:
                _kept[_here(), self.job.resources] = actors.pop(), self.places.pop()
            return model
        except _RanksLost as lost:
            # The survivors of a dead rank fail in their next collective, often before the death is
            # known.
            lost.died = lost.died or _any_dead(actors)
            raise
        except ray.exceptions.RayActorError as error:
            raise _RanksLost(f"a rank died: {gist(error)}", died=True) from error
        except ray.exceptions.GetTimeoutError as error:
            raise _no_room(self.job.resources) from error
        finally:
            forget_workers(self.id)
            end_actors(actors, self.places)
            if group is not None:
                ray.util.remove_placement_group(group)

    def _follow(self, actors: list[Any]) -> Handle:
        """Hand out the work, then poll: finished ranks and events."""
        import ray

        resources = self.job.resources
        patience_s = resources.start_timeout_s
        self.places = ray.get([actor.place.remote() for actor in actors], timeout=patience_s)
        alone = resources.num_ranks == 1
        assignment = Assignment(
            job=self.job,
            job_digest=self.job_digest,
            model_digest=self.model_digest,
            store=self.store,
            num_ranks=resources.num_ranks,
            master=("" if alone else ray.get(actors[0].meeting_point.remote(), timeout=patience_s)),
            attempt=self.id,
            resume=self.resume,
            reference=(
                self.store.find(self.job.reference_name(), self.job_digest)
                if isinstance(self.job, DpoJob)
                else None
            ),
        )
        waiting = [actor.run.remote(assignment) for actor in actors]
        drained = _Drained(actors)
        results: list[Handle | None] = []
        self.last_step_at = time.monotonic()
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)
            results += [_result(ref) for ref in done]
            self._take_all(drained.events())
            if time.monotonic() - self.last_step_at > self._patience_s():
                raise _RanksLost(self._stuck(actors), died=True)
        for _ in range(2):  # what was asked for before the ranks ended, and what came after
            self._take_all(drained.events(wait_s=DEATH_NOTICE_S))
        model = next((result for result in results if result is not None), None)
        if model is None:
            raise TrainingError(explain("no rank published a model", got=self.job.name))
        return model

    def _patience_s(self) -> float:
        """Longest time without a step; before the first one models are read and ranks meet."""
        resources = self.job.resources
        return resources.stall_timeout_s + (0 if self.took_steps else resources.start_timeout_s)

    def _stuck(self, actors: list[Any]) -> str:
        """One line on where each rank stands; their stacks go to the log."""
        found = []
        for rank, (place, stacks) in enumerate(zip(self.places, _stacks(actors), strict=True)):
            name = f"rank {rank} (pid {place.pid} on {place.node})"
            if stacks is None:
                found.append(f"{name} does not answer")
                continue
            logger.error("stuck %s:\n%s", name, stacks)
            where = innermost_frame(stacks, file="rank.py", function="train_rank")
            found.append(f"{name} in {where}")
        return f"no step for {self._patience_s():.0f} s: {', '.join(found)}"

    def _ranks(self) -> list[WorkerState]:
        """For heartbeats and watchdogs; rank 0 tells of the steps that all take together."""
        silent_s = time.monotonic() - self.last_step_at
        return [
            WorkerState(
                name=f"rank {rank}",
                phase="training" if self.took_steps else "starting",
                in_flight=1,
                oldest_s=silent_s,
                last_step_s=silent_s,
                restarts=self.restarts,
                pid=place.pid,
                node=place.node,
                last_failure=self.last_failure,
            )
            for rank, place in enumerate(self.places)
        ]

    def _take_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, PartPublished):
            self.save_blocked_s = max(self.save_blocked_s, event.blocked_s)
            self._gather(event)
            return
        self.last_step_at = time.monotonic()
        self.took_steps = self.took_steps or isinstance(event, StepDone)
        if self.progress is not None:
            self.progress(_as_progress(event, self.save_blocked_s))

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
        forget_checkpoints(
            self.store,
            self.job.checkpoints_name(),
            newest=self.job.resources.keep_checkpoints,
            unused=self.unused,
        )


class _Drained:
    """Events of all ranks; a rank that does not answer holds nobody up."""

    def __init__(self, actors: list[Any]) -> None:
        self.actors = actors
        self.asked = [actor.drain.remote() for actor in actors]

    def events(self, wait_s: float = 0.0) -> Iterator[Event]:
        """What has been answered; waits for all answers up to `wait_s`."""
        import ray

        ready, _ = ray.wait(self.asked, num_returns=len(self.asked), timeout=wait_s)
        for rank, ref in enumerate(self.asked):
            if ref in ready:
                self.asked[rank] = self.actors[rank].drain.remote()
                yield from ray.get(ref)


def _stacks(actors: list[Any]) -> list[str | None]:
    """Each rank's stacks, None where it does not answer."""
    import ray

    asked = [actor.stacks.remote() for actor in actors]
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=DEATH_NOTICE_S)
    found: list[str | None] = []
    for ref in asked:
        try:
            found.append(ray.get(ref) if ref in ready else None)
        except ray.exceptions.RayActorError:
            found.append(None)
    return found


def _any_dead(actors: list[Any]) -> bool:
    import ray

    try:
        ray.get([actor.drain.remote() for actor in actors], timeout=DEATH_NOTICE_S)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return True
    return False


def end_ranks() -> None:
    """End the rank that a job of this process left up for the next one."""
    import ray

    while _kept:
        (node, _), (actor, place) = _kept.popitem()
        # Ray may have been started anew since; then it has ended the actor itself.
        if ray.is_initialized() and node == _here():
            end_actors([actor], [place])


def _here() -> str:
    """Ray's name of this process's node, another one whenever Ray starts anew."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _may_stay(resources: TrainResources) -> bool:
    return resources.num_ranks == 1 and resources.gpus_per_rank == 0


def _waiting_rank(resources: TrainResources) -> Any | None:
    """The rank left by an earlier job where it fits this one and lives; else it is ended."""
    import ray

    kept = _kept.pop((_here(), resources), None)
    end_ranks()
    if kept is None:
        return None
    actor, place = kept
    try:
        ray.get(actor.place.remote(), timeout=DEATH_NOTICE_S)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        end_actors([actor], [place])
        return None
    return actor


def _start(resources: TrainResources) -> tuple[list[Any], Any]:
    """Start one actor per rank, all or none."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    connect()
    waiting = _waiting_rank(resources)
    if waiting is not None:
        return [waiting], None
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
        raise _RanksLost(f"a rank failed: {gist(error.cause)}", died=False) from error
    assert result is None or isinstance(result, Handle)
    return result


def _as_progress(event: StepDone | ReferenceForward, save_blocked_s: float) -> Progress:
    if isinstance(event, ReferenceForward):
        return Progress(stage="reference", done=event.done, total=event.total, unit="forwards")
    facts = {"tokens_per_s": event.tokens_per_s}
    facts |= {k: v for k, v in event.metrics.items() if k not in {"step", "tokens"}}
    if save_blocked_s:
        facts["save_blocked_s"] = save_blocked_s
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
