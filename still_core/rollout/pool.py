"""A pool of rollout actors that loses nothing and repeats nothing.

    submit(requests) -> queues per worker -> actors -> poll() -> rollouts, each id once

The pool keeps every request until its rollout has been handed out. A worker that dies, fails,
hangs or does not start is replaced, the new one gets the current weights, and what the old one
owed goes back to the front of the queue. Attempts at one problem go to one worker, whose prefix
cache holds the prompt; a worker that runs dry takes over whole problems from the longest queue,
and at the end also repeats the oldest completions of a straggler: the first result counts. A place
where no engine starts any more is given up, and the others draw what it owed.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from still_core.closing import Closing
from still_core.errors import ConfigError, RolloutError, explain
from still_core.heartbeat import GIVEN_UP, WorkerState, forget_workers, watch_workers
from still_core.rollout.actor import LINGER_S, Command, EngineFactory, Report, RolloutActor
from still_core.rollout.cluster import end_actors, gist
from still_core.rollout.engines.engine import build_engine, engine_build
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Rollout, RolloutRequest
from still_core.rollout.weights import Weights, directory_digest, shape_digest
from still_core.stacks import innermost_frame
from still_core.store.handle import Handle

_LOG = logging.getLogger(__name__)
_COLLECT_WAIT_S = 1.0
BACKLOG = 1.5
"""Requests that a worker holds, as a multiple of what it draws at once: the next ones are at hand
when some end, and few are lost or stuck with a worker that goes bad."""
_REFILL = 1.25
"""It is given more when it holds no more than this: each call takes a millisecond of interpreter
from the engine's thread."""


@dataclass
class _Worker:
    name: str
    actor: Any = None
    collect: Any = None
    queue: deque[str] = field(default_factory=deque)
    """Ids of requests not sent yet."""
    in_flight: dict[str, float] = field(default_factory=dict)
    """Request id -> time it was sent."""
    report: Report | None = None
    commands: int = 0
    """Sent to this actor so far."""
    asked: float = 0.0
    """When it was last called for completions."""
    answered: float = 0.0
    """When that call ended, at the latest: the answer may have lain unread."""
    started: float = 0.0
    """When its actor was made; after its first answer, when that came: an actor may wait for its
    place as long as an engine may start. While nobody asks, this clock and the next stand still."""
    advanced: float = 0.0
    """When its engine was last seen to work."""
    failures: int = 0
    """Failures in a row without a finished completion."""
    failure: str = ""
    """Why it must be replaced; empty while it lives."""
    restarts: int = 0
    last_failure: str = ""
    absent: str = "waiting for resources"
    """Its phase while it has no report: this, or `GIVEN_UP`."""

    def known_until(self, now: float) -> float:
        """Up to when it was seen what its engine does: an answer is out, or the last has ended."""
        return now if self.collect is not None else self.answered


class RolloutPool(Closing):
    """Rollout actors behind submit, cancel and poll. One thread may use it."""

    def __init__(
        self,
        model_dir: Path | str,
        engine: EngineRecipe,
        resources: RolloutResources,
        *,
        policy_digest: str = "",
        policy_version: int = -1,
        handle: Handle | None = None,
        store_uri: str = "",
        factory: EngineFactory = build_engine,
    ) -> None:
        """Name the pool; actors start with the first request.

        Args:
            model_dir: model folder on this machine (`Store.fetch` gives one); may be empty where
                an endpoint has the model.
            engine: recipe of the engine.
            resources: number of actors, their CPUs and GPUs, deadlines.
            policy_digest: digest of the weights; by default that of `handle`, else of the folder.
            policy_version: t of the policy M_t; -1 for a teacher or another model that is none.
            handle: where other nodes find the weights, in the store at `store_uri`.
            store_uri: root of that store.
            factory: builds the engine inside an actor.

        Raises:
            ConfigError: the engine is not installed, or the folder is no model with a tokenizer.
        """
        self.engine, self.resources, self._factory = engine, resources, factory
        self.engine_build = engine_build(engine)
        self.shape = _shape(engine, Path(model_dir))
        self.weights = _weights(model_dir, policy_digest, policy_version, handle, store_uri)
        self.tokens_generated = 0
        self._workers: list[_Worker] = []
        self._given_up: list[_Worker] = []
        self._requests: dict[str, RolloutRequest] = {}
        self._home: dict[str, _Worker] = {}
        self._durations: deque[float] = deque(maxlen=512)
        self._tokenizer: Any = None

    @property
    def policy_digest(self) -> str:
        """Digest of the weights that completions are drawn with."""
        return self.weights.policy_digest

    @property
    def policy_version(self) -> int:
        """t of the policy M_t; -1 for a model that is none."""
        return self.weights.policy_version

    @property
    def capacity(self) -> int:
        """Completions that all workers together draw at once."""
        workers = self.resources.num_actors - len(self._given_up)
        return workers * self.resources.max_num_seqs

    @property
    def room(self) -> int:
        """Requests that can be submitted before the rest would only wait in a queue."""
        return int(self.capacity * BACKLOG) - len(self._requests)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model folder; None where an endpoint has the model."""
        if self._tokenizer is None and self.weights.directory:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self.weights.directory)
        return self._tokenizer

    def load_weights(
        self,
        model_dir: Path | str,
        *,
        policy_digest: str = "",
        policy_version: int = -1,
        handle: Handle | None = None,
        store_uri: str = "",
    ) -> None:
        """Change to other weights of the same architecture and tokenizer; see the constructor.

        Workers that were given up are tried again.

        Raises:
            RolloutError: requests are pending.
            ConfigError: architecture or tokenizer differ.
        """
        if self.pending():
            raise RolloutError(
                explain("weights change with requests pending", got=self.pending(), expected=0)
            )
        if _shape(self.engine, Path(model_dir)) != self.shape:
            raise ConfigError(
                explain(
                    "new weights do not fit the engine",
                    got=str(model_dir),
                    expected="the same config.json and tokenizer.json",
                    remedy="use a new pool for another architecture",
                )
            )
        weights = _weights(model_dir, policy_digest, policy_version, handle, store_uri)
        if weights != self.weights:
            self.weights, self._tokenizer = weights, None
            self._home.clear()
            for worker in self._workers:
                if worker.actor is not None:
                    self._send(worker, Command(weights=weights))
            while self._given_up:
                worker = self._given_up.pop()
                self._workers.append(worker)
                self._start(worker)

    def submit(self, requests: Iterable[RolloutRequest]) -> None:
        """Queue requests; one whose id is already pending is not queued again.

        Raises:
            RolloutError: a request asks for other weights or another engine build.
        """
        for request in requests:
            self._require_current(request)
            identity = request.id
            if identity in self._requests:
                continue
            self._requests[identity] = request
            self._ensure_workers()
            self._home_of(request).queue.append(identity)

    def cancel(self, ids: Iterable[str]) -> None:
        """Forget requests; their completions are never handed out."""
        known = {identity for identity in ids if self._requests.pop(identity, None) is not None}
        if not known:
            return
        for worker in self._workers:
            worker.queue = deque(i for i in worker.queue if i not in known)
            running = tuple(identity for identity in worker.in_flight if identity in known)
            for identity in running:
                del worker.in_flight[identity]
            if running:
                self._send(worker, Command(abort=running))

    def pending(self) -> int:
        """Requests submitted, neither finished nor cancelled."""
        return len(self._requests)

    def abandon(self) -> None:
        """Forget all that is pending."""
        self.cancel(list(self._requests))

    def poll(self, timeout_s: float = 0.25) -> list[Rollout]:
        """Rollouts that finished since the last call; waits up to `timeout_s` for the first.

        Raises:
            RolloutError: a worker failed more than `max_restarts` times in a row without a
                completion, and its engine had started, or it was the last worker.
        """
        import ray

        if not self._requests:
            return []
        # Before anything is taken: an error or an interrupt of a replacement loses no rollout then.
        self._replace_failed()
        self._dispatch()
        for worker in self._workers:
            if worker.collect is None:
                self._collect(worker)
        refs = {worker.collect: worker for worker in self._workers}
        ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        finished: list[Rollout] = []
        for ref in ready:
            worker = refs[ref]
            worker.collect = None
            now = time.monotonic()
            # An answer may have lain unread. Only the first, which waits for the actor to be made,
            # can have taken longer than this.
            latest = now if worker.report is None else worker.asked + _COLLECT_WAIT_S + LINGER_S
            worker.answered = min(now, latest)
            try:
                report: Report = ray.get(ref)
            except (ray.exceptions.RayError, OSError) as error:
                worker.failure = f"actor died: {gist(error)}"
                continue
            finished.extend(self._absorb(worker, report))
            worker.failure = report.failure
        self._dispatch()
        return finished

    def generate(self, requests: Iterable[RolloutRequest]) -> Iterator[Rollout]:
        """Draw all of `requests`; yields each rollout as it finishes, each id once."""
        wanted = list(requests)
        self.submit(wanted)
        owed = {request.id for request in wanted}
        while owed:
            for rollout in self.poll():
                owed.discard(rollout.id)
                yield rollout

    def health(self) -> list[WorkerState]:
        """What each worker is doing, from what the pool knows (asks nobody)."""
        now = time.monotonic()
        # Other threads ask: a worker that is replaced meanwhile loses its report.
        workers = [*self._workers, *self._given_up]
        reports = [(worker, worker.report) for worker in workers]
        return [
            WorkerState(
                name=worker.name,
                pid=report.place.pid if report else 0,
                node=report.place.node if report else "",
                phase=report.phase if report else worker.absent,
                in_flight=len(worker.in_flight),
                oldest_s=now - min(list(worker.in_flight.values()), default=now),
                last_step_s=worker.known_until(now) - worker.advanced,
                restarts=worker.restarts,
                last_failure=worker.last_failure,
            )
            for worker, report in reports
        ]

    def close(self) -> None:
        """End the actors; the pool can be used again and starts new ones then."""
        forget_workers(f"rollout pool {id(self)}")
        self._end(self._workers)
        self._workers.clear()
        self._given_up.clear()
        self._requests.clear()
        self._home.clear()

    def _require_current(self, request: RolloutRequest) -> None:
        for what, got, expected in (
            ("weights", request.policy_digest, self.policy_digest),
            ("engine build", request.engine_build, self.engine_build),
        ):
            if got != expected:
                raise RolloutError(
                    explain(f"request for another {what}", got=got, expected=expected)
                )

    def _ensure_workers(self) -> None:
        if not self._workers:
            from still_core.rollout.cluster import connect

            connect()
            for number in range(self.resources.num_actors):
                worker = _Worker(name=f"rollout-{number}")
                self._workers.append(worker)
                self._start(worker)
            watch_workers(f"rollout pool {id(self)}", self.health)

    def _start(self, worker: _Worker) -> None:
        import ray

        from still_core.rollout.cluster import worker_environment
        from still_core.rollout.engines.vllm import environment

        options: dict[str, Any] = {
            "num_cpus": self.resources.cpus_per_actor,
            "num_gpus": self.resources.gpus_per_actor,
            # The pool replaces actors itself: Ray would restart them with outdated weights.
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": {"control": 1, "collect": 1, "health": 1},
            "runtime_env": {"env_vars": worker_environment(environment(self.resources))},
        }
        actor_class: Any = ray.remote(**options)(RolloutActor)
        worker.actor = actor_class.remote(self._factory, self.engine, self.resources, self.weights)
        worker.report, worker.commands, worker.in_flight = None, 0, {}
        worker.absent = "waiting for resources"
        worker.started = worker.advanced = worker.answered = time.monotonic()
        self._collect(worker)

    def _send(self, worker: _Worker, command: Command) -> None:
        """With the next call for completions, or apart where that is on its way already."""
        numbered = replace(command, number=worker.commands)
        worker.commands += 1
        if worker.collect is None:
            self._collect(worker, numbered)
        else:
            worker.actor.send.options(concurrency_group="control").remote(numbered)

    def _collect(self, worker: _Worker, command: Command | None = None) -> None:
        worker.asked = time.monotonic()
        unasked = worker.asked - worker.answered
        worker.started = min(worker.asked, worker.started + unasked)
        worker.advanced = min(worker.asked, worker.advanced + unasked)
        worker.collect = worker.actor.collect.options(concurrency_group="collect").remote(
            _COLLECT_WAIT_S, command
        )

    def _home_of(self, request: RolloutRequest) -> _Worker:
        """The worker that draws all attempts at this problem: the least loaded one at first."""
        home = self._home.get(request.problem_digest)
        if home is None:
            home = min(self._workers, key=lambda w: len(w.queue) + len(w.in_flight))
            self._home[request.problem_digest] = home
        return home

    def _dispatch(self) -> None:
        """Fill every worker, from its own queue first."""
        now = time.monotonic()
        room = int(self.resources.max_num_seqs * BACKLOG)
        for worker in self._workers:
            if worker.failure or len(worker.in_flight) > int(self.resources.max_num_seqs * _REFILL):
                continue
            free = room - len(worker.in_flight)
            if not worker.queue and len(worker.in_flight) < self.resources.max_num_seqs:
                self._take_over(worker)
                self._take_back(worker)
            batch: list[str] = []
            while worker.queue and len(batch) < free:
                identity = worker.queue.popleft()
                # One that was taken back may have ended at the other worker all the same.
                if identity in self._requests:
                    batch.append(identity)
            if not worker.queue and len(worker.in_flight) + len(batch) == 0:
                batch = self._relieve_stragglers(worker, now)
            if batch:
                if not worker.in_flight:
                    worker.advanced = now
                worker.in_flight.update((identity, now) for identity in batch)
                requests = tuple(self._requests[identity] for identity in batch)
                self._send(worker, Command(submit=requests))

    def _take_over(self, idle: _Worker) -> None:
        """Move whole problems from the tail of the longest queue to an idle worker."""
        donor = max(self._workers, key=lambda w: len(w.queue))
        # One that was taken back may have ended at the other worker all the same.
        donor.queue = deque(i for i in donor.queue if i in self._requests)
        if donor is idle or len(donor.queue) < 2:
            return
        wanted = len(donor.queue) // 2
        moved: deque[str] = deque()
        while donor.queue and (
            len(moved) < wanted or self._problem(donor.queue[-1]) == self._problem(moved[0])
        ):
            moved.appendleft(donor.queue.pop())
            self._home[self._problem(moved[0])] = idle
        idle.queue.extend(moved)

    def _take_back(self, idle: _Worker) -> None:
        """Move what only waits inside the fullest worker's engine to a worker with free places."""
        donor = max(self._workers, key=lambda w: len(w.in_flight))
        waiting = len(donor.in_flight) - self.resources.max_num_seqs
        places = self.resources.max_num_seqs - len(idle.in_flight) - len(idle.queue)
        count = min(waiting, places)
        if count <= 0:
            return
        # An engine starts requests in the order in which it got them.
        moved = [i for i in list(donor.in_flight)[-count:] if i not in idle.in_flight]
        for identity in moved:
            del donor.in_flight[identity]
        self._send(donor, Command(abort=tuple(moved)))
        idle.queue.extend(moved)

    def _problem(self, identity: str) -> str:
        return self._requests[identity].problem_digest

    def _relieve_stragglers(self, idle: _Worker, now: float) -> list[str]:
        """Requests that another worker has held too long, for an idle one to draw as well."""
        limit = self.resources.straggler_s
        if len(self._durations) >= 16:
            limit = max(limit, 4 * statistics.median(self._durations))
        late = [
            (sent, identity)
            for worker in self._workers
            if worker is not idle
            for identity, sent in worker.in_flight.items()
            if now - sent > limit and not self._is_doubled(identity)
        ]
        late.sort()
        return [identity for _, identity in late[: self.resources.max_num_seqs]]

    def _is_doubled(self, identity: str) -> bool:
        return sum(identity in worker.in_flight for worker in self._workers) > 1

    def _absorb(self, worker: _Worker, report: Report) -> list[Rollout]:
        now = worker.answered
        before, worker.report = worker.report, report
        if before is None:
            worker.started = now
        if before is None or report.steps != before.steps or report.phase != before.phase:
            worker.advanced = now
        rollouts = []
        for identity, completion in report.finished:
            sent = worker.in_flight.pop(identity, None)
            request = self._requests.pop(identity, None)
            if sent is not None:
                self._durations.append(now - sent)
            if request is None:
                continue
            worker.failures = 0
            self.tokens_generated += len(completion.token_ids)
            self._abort_doubles(identity)
            rollouts.append(Rollout.of(request, completion))
        return rollouts

    def _abort_doubles(self, identity: str) -> None:
        for worker in self._workers:
            if worker.in_flight.pop(identity, None) is not None:
                self._send(worker, Command(abort=(identity,)))

    def _replace_failed(self) -> None:
        """Replace workers that failed, and those that are late."""
        for worker in list(self._workers):
            worker.failure = worker.failure or self._why_late(worker)
            if worker.failure:
                self._replace(worker)

    def _why_late(self, worker: _Worker) -> str:
        """What the worker has not done in its time; empty where it is not late."""
        now = worker.known_until(time.monotonic())
        phase = "starting" if worker.report is None else worker.report.phase
        limit = self.resources.stall_deadline_s
        if phase == "loading weights":
            # Fetches and reads as much as a start does.
            limit = max(limit, self.resources.start_deadline_s)
        if phase == "starting":
            late = now - worker.started > self.resources.start_deadline_s
            return self._why_not_started(worker) if late and not _has_answered(worker) else ""
        if worker.in_flight and now - worker.advanced > limit and not _has_answered(worker):
            seconds = round(now - worker.advanced)
            return f"no engine step for {seconds} s, stuck in {self._where(worker)}"
        return ""

    def _why_not_started(self, worker: _Worker) -> str:
        from still_core.rollout.cluster import free_resources

        seconds = round(self.resources.start_deadline_s)
        if worker.report is not None:
            return f"engine did not start within {seconds} s, stuck in {self._where(worker)}"
        return (
            f"actor got no CPU or GPU within {seconds} s: wants "
            f"{self.resources.cpus_per_actor} CPU and {self.resources.gpus_per_actor} GPU, "
            f"free are {free_resources()}"
        )

    def _where(self, worker: _Worker) -> str:
        """The innermost frame of the worker's engine thread, or why it can not be told."""
        import ray

        ref = worker.actor.stacks.options(concurrency_group="health").remote()
        try:
            return innermost_frame(ray.get(ref, timeout=5), file="actor.py", function="_run")
        except (ray.exceptions.RayError, OSError) as error:
            return f"an unknown place ({type(error).__name__} when asked for stacks)"

    def _replace(self, worker: _Worker) -> None:
        """End `worker`, put what it owed back in front, start another with the current weights."""
        worker.failures += 1
        worker.restarts += 1
        worker.last_failure = worker.failure
        pid = worker.report.place.pid if worker.report else 0
        had_started = _has_started(worker)
        self._end([worker])
        owed, worker.in_flight = list(worker.in_flight), {}
        elsewhere = {identity for other in self._workers for identity in other.in_flight}
        worker.queue.extendleft(i for i in reversed(owed) if i not in elsewhere)
        if worker.failures > self.resources.max_restarts:
            # What kills an engine at its work would go on to the next worker.
            if not had_started and len(self._workers) > 1:
                self._give_up(worker)
                return
            self.close()
            raise RolloutError(
                explain(
                    f"worker {worker.name} (pid {pid}) failed {worker.failures} times in a row",
                    got=worker.failure,
                    remedy="mend the cause and run again: finished rollouts are in the bank",
                )
            )
        self._start(worker)
        worker.failure = ""

    def _give_up(self, worker: _Worker) -> None:
        """Let the others draw what it owes."""
        _LOG.warning(
            "worker %s is given up after %d failures in a row: %s; %d go on",
            worker.name,
            worker.failures,
            worker.failure,
            len(self._workers) - 1,
        )
        self._workers.remove(worker)
        self._given_up.append(worker)
        self._home = {d: home for d, home in self._home.items() if home is not worker}
        owed, worker.queue, worker.report = worker.queue, deque(), None
        worker.failures, worker.failure, worker.absent = 0, "", GIVEN_UP
        for identity in owed:
            if identity in self._requests:
                self._home_of(self._requests[identity]).queue.append(identity)

    def _end(self, workers: Sequence[_Worker]) -> None:
        """End the actors and processes of workers."""
        alive = [worker for worker in workers if worker.actor is not None]
        end_actors(
            [worker.actor for worker in alive],
            [worker.report.place for worker in alive if worker.report is not None],
        )
        for worker in alive:
            worker.actor = worker.collect = None


_POOLS: dict[tuple[str, EngineRecipe, RolloutResources], RolloutPool] = {}


def acquire_pool(
    model_dir: Path | str,
    engine: EngineRecipe,
    resources: RolloutResources,
    *,
    policy_digest: str = "",
    policy_version: int = -1,
    handle: Handle | None = None,
    store_uri: str = "",
) -> RolloutPool:
    """This process's pool for the recipe and architecture, holding these weights.

    An engine takes 10-60 s to start and 0.1 s to change weights, so all stages of a run share one.
    Pools of other architectures, recipes or resources are closed: memory holds one at a time.
    Arguments as for `RolloutPool`.
    """
    key = (_shape(engine, Path(model_dir)), engine, resources)
    for other in [known for known in _POOLS if known != key]:
        _POOLS.pop(other).close()
    pool = _POOLS.get(key)
    if pool is None:
        pool = _POOLS[key] = RolloutPool(
            model_dir,
            engine,
            resources,
            policy_digest=policy_digest,
            policy_version=policy_version,
            handle=handle,
            store_uri=store_uri,
        )
        return pool
    pool.abandon()  # what a stage left that ended in an error
    pool.load_weights(
        model_dir,
        policy_digest=policy_digest,
        policy_version=policy_version,
        handle=handle,
        store_uri=store_uri,
    )
    return pool


def close_pools() -> None:
    """End all pools of this process."""
    while _POOLS:
        _POOLS.popitem()[1].close()


def release_gpus() -> None:
    """End the pools of this process that hold GPUs, so that a training job can have them.

    Engines on CPU stay: they keep nothing that training needs.
    """
    for key in [key for key in _POOLS if key[2].gpus_per_actor > 0]:
        _POOLS.pop(key).close()


def _has_started(worker: _Worker) -> bool:
    """Whether its engine holds weights, or held them before it failed."""
    return worker.report is not None and bool(worker.report.policy_digest)


def _has_answered(worker: _Worker) -> bool:
    """Whether an answer lies unread, on whatever node: it may say that the worker is not late."""
    import ray

    if worker.collect is None:
        return False
    ready, _ = ray.wait([worker.collect], timeout=0, fetch_local=False)
    return bool(ready)


def _shape(engine: EngineRecipe, model_dir: Path) -> str:
    return engine.model if engine.kind == "openai" else shape_digest(model_dir)


def _weights(
    model_dir: Path | str,
    policy_digest: str,
    policy_version: int,
    handle: Handle | None,
    store_uri: str,
) -> Weights:
    if not policy_digest:
        policy_digest = handle.digest if handle is not None else directory_digest(Path(model_dir))
    return Weights(
        directory=str(model_dir),
        policy_digest=policy_digest,
        policy_version=policy_version,
        handle=handle,
        store_uri=store_uri,
    )
