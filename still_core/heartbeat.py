"""What a run is doing right now, written to the store for whoever watches.

    Progress -> Heartbeat -> runs/<run>/heartbeat/<stage>.json -> read_heartbeats -> `still watch`

One small object per stage, written over at most every two seconds by a thread of its own, so a
slow store never holds up a stage. A stage whose figures and busy workers stand still for its limit
is marked as stalled, with the place where the program stands, the worker that has been silent
longest and the stacks of all threads beside it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from still_core.errors import DataError, StoreError, explain
from still_core.progress import Progress
from still_core.stacks import thread_stacks

WRITE_EVERY_S = 2.0
RATE_WINDOW_S = 60.0
SILENT_AFTER_S = 30.0
"""A heartbeat this old means that its process is gone or frozen."""

_LOG = logging.getLogger(__name__)
_NOT_IN_KEYS = re.compile(r"[^\w.-]+")
_KEY = re.compile(r"runs/(.+)/heartbeat/[^/]+\.json\Z")


class State(StrEnum):
    """How a stage fares."""

    RUNNING = "running"
    STALLED = "stalled"
    """Its process lives; no figure has changed and no busy worker has stepped for the limit."""
    SILENT = "silent"
    """Its process has not been heard: dead or frozen."""
    ENDED = "ended"
    FAILED = "failed"
    """Its stage ended with an error, told as `where`."""

    def is_over(self) -> bool:
        """Nothing more will be heard of it."""
        return self in (State.ENDED, State.FAILED)


GIVEN_UP = "given up"
"""Phase of a worker that is not started again for now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """One worker of a stage, as far as its owner knows."""

    name: str
    phase: str
    in_flight: int
    oldest_s: float
    """Age of its oldest request, seconds."""
    last_step_s: float
    """Seconds since it was last seen to advance."""
    restarts: int
    pid: int
    node: str
    last_failure: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageState:
    """One stage at one moment: the content of a heartbeat."""

    run: str
    stage: str
    unit: str
    done: int
    total: int | None
    rate: float
    """Units per second over the last minute."""
    seconds_left: float | None
    """None where the end or the rate is not known."""
    facts: dict[str, float]
    workers: list[WorkerState]
    state: State
    where: str
    """Where a stalled stage stands, why a failed one ended; empty otherwise."""
    pid: int
    host: str
    started_at: float
    written_at: float
    advanced_at: float
    """When a figure last changed; seconds since the epoch, like the other two."""

    @property
    def oldest_s(self) -> float:
        """Age of the oldest request in flight, seconds; 0 where none is."""
        return max((worker.oldest_s for worker in self.workers), default=0.0)

    def seen_at(self, now: float) -> State:
        """The state as a reader at time `now` must take it."""
        if not self.state.is_over() and now - self.written_at > SILENT_AFTER_S:
            return State.SILENT
        return self.state

    @classmethod
    def from_json(cls, text: bytes) -> StageState:
        """The inverse of `json.dumps(asdict(state))`; fields that it does not know do no harm.

        Raises:
            DataError: no JSON, or not the fields of a heartbeat.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            first = f"{'.'.join(str(part) for part in faults[0]['loc'])} {faults[0]['msg']}"
            raise DataError(explain("no heartbeat of this version", got=first.strip())) from None


class StoreLike(Protocol):
    """The part of `still_core.store.Store` that heartbeats need."""

    @property
    def backend(self) -> Any:
        """Puts, scans and reads keys."""


Probe = Callable[[], list[WorkerState]]
_PROBES: dict[str, Probe] = {}


def watch_workers(name: str, probe: Probe) -> None:
    """Show the workers that `probe` tells of in every heartbeat, until `forget_workers(name)`."""
    _PROBES[name] = probe


def forget_workers(name: str) -> None:
    """Undo `watch_workers`."""
    _PROBES.pop(name, None)


@dataclass
class _Stage:
    progress: Progress
    started_at: float
    advanced_at: float
    history: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=512))
    stalled: bool = False
    changed: bool = True
    failure: str = ""
    closed: bool = False
    """Its work is over, whatever the figures say."""

    def over(self) -> bool:
        """Whether it will not go on."""
        progress = self.progress
        return self.closed or (progress.total is not None and progress.done >= progress.total)


class Heartbeat:
    """A progress listener that publishes what it hears. Threads may share it."""

    def __init__(
        self,
        store: StoreLike,
        run: str,
        *,
        stall_limit_s: float = 600.0,
        write_every_s: float = WRITE_EVERY_S,
    ) -> None:
        """Name the run; a thread starts with the first progress and ends with the last stage.

        Args:
            store: where heartbeats go.
            run: name of the run.
            stall_limit_s: a stage whose figures and workers stand still for longer is marked as
                stalled.
            write_every_s: shortest time between two writes of a stage.
        """
        self._store, self._run = store, run
        self._limit, self._every = stall_limit_s, write_every_s
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        _MADE.get([]).append(self)

    def __call__(self, progress: Progress) -> None:
        """Hear of a stage; returns at once."""
        now = time.time()
        with self._lock:
            stage = self._stages.get(progress.stage)
            if stage is None:
                stage = self._stages[progress.stage] = _Stage(progress, now, now)
            elif figures(progress) != figures(stage.progress):
                stage.advanced_at, stage.stalled = now, False
            stage.progress, stage.changed, stage.closed = progress, True, False
            stage.history.append((now, progress.done))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run_thread, name="heartbeat", daemon=True
                )
                self._thread.start()
            over = stage.over()
        if over:
            self._wake.set()

    def close(self, failure: str = "") -> None:
        """The work is over: write that, and why it failed if it did, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            for stage in self._stages.values():
                if not stage.over():
                    stage.closed, stage.changed, stage.failure = True, True, failure
        self._wake.set()
        if thread is not None:
            thread.join(timeout=10)

    def _run_thread(self) -> None:
        me = threading.current_thread()
        while True:
            self._wake.wait(self._every)
            self._wake.clear()
            self._beat()
            with self._lock:
                if self._thread not in (me, None):
                    return
                stages = self._stages.values()
                if self._thread is me and not all(stage.over() for stage in stages):
                    continue
                if any(stage.changed for stage in stages):
                    # The last word came while an earlier one was being written.
                    self._wake.set()
                    continue
                # The next progress starts another thread.
                self._thread = None
                return

    def _beat(self) -> None:
        now = time.time()
        with self._lock:
            due = [stage for stage in self._stages.values() if stage.changed or not stage.over()]
            for stage in due:
                stage.changed = False
        for stage in due:
            try:
                self._write(stage, now)
            except Exception:
                # Nobody but this thread can tell of the stage: the next beat may do better.
                _LOG.exception("heartbeat of run %s was not written", self._run)

    def _write(self, stage: _Stage, now: float) -> None:
        key = f"runs/{self._run}/heartbeat/{_NOT_IN_KEYS.sub('-', stage.progress.stage)}"
        workers = [] if stage.over() else _all_workers()
        before, stage.stalled = stage.stalled, self._is_late(stage, workers, now)
        if stage.stalled and not before:
            self._put(f"{key}.stacks.txt", thread_stacks().encode())
        state = self._state(stage, workers, now)
        self._put(f"{key}.json", json.dumps(asdict(state)).encode())

    def _is_late(self, stage: _Stage, workers: list[WorkerState], now: float) -> bool:
        """Whether neither its figures nor workers with work have advanced for the limit.

        A worker's clock stands still while nobody asks it: its step counts up to the last report.
        """
        steps = [now - worker.last_step_s for worker in workers if worker.in_flight]
        told_at, _ = stage.history[-1]
        advanced_at = max(stage.advanced_at, min(told_at, max(steps, default=0.0)))
        return not stage.over() and now - advanced_at > self._limit

    def _put(self, key: str, data: bytes) -> None:
        try:
            self._store.backend.put(key, data)
        except StoreError as error:
            # Watching is a convenience: the stage goes on, and says why nobody can watch it.
            _LOG.warning("heartbeat of run %s was not written: %s", self._run, error)

    def _state(self, stage: _Stage, workers: list[WorkerState], now: float) -> StageState:
        progress, ended = stage.progress, stage.over()
        rate = _rate(stage.history.copy(), now)
        left = None
        if progress.total is not None and rate > 0:
            left = (progress.total - progress.done) / rate
        state = State.STALLED if stage.stalled else State.RUNNING
        if ended:
            state = State.FAILED if stage.failure else State.ENDED
        return StageState(
            run=self._run,
            stage=progress.stage,
            unit=progress.unit,
            done=progress.done,
            total=progress.total,
            rate=rate,
            seconds_left=0.0 if ended else left,
            facts=dict(progress.facts),
            workers=workers,
            state=state,
            where=stage.failure or (_where(workers) if stage.stalled and not ended else ""),
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=stage.started_at,
            written_at=now,
            advanced_at=stage.advanced_at,
        )


_MADE: ContextVar[list[Heartbeat]] = ContextVar("heartbeats")


@contextmanager
def heartbeats_of_stage() -> Iterator[None]:
    """Heartbeats made inside the block end with it; an error shows as `failed` with its cause."""
    made: list[Heartbeat] = []
    token = _MADE.set(made)
    failure = ""
    try:
        yield
    except BaseException as error:
        failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise
    finally:
        _MADE.reset(token)
        for heartbeat in made:
            heartbeat.close(failure)


def read_heartbeats(
    store: StoreLike, run: str = "", *, left_out: Callable[[str], object] = _LOG.warning
) -> list[StageState]:
    """Heartbeats of a run (of the run heard of last, if none is named), oldest stage first.

    Args:
        store: where they are.
        run: name of the run.
        left_out: told one line for each heartbeat that can not be read.

    Raises:
        ConfigError: no name of a run.
        StoreError: the store can not be listed.
    """
    from still_core.store.names import check_name

    prefix = f"runs/{check_name(run, what='run')}/heartbeat/" if run else "runs/"
    found = {stat.key: stat.modified for stat in store.backend.scan(prefix)}
    runs = {key: match.group(1) for key in found if (match := _KEY.match(key))}
    if not run and runs:
        run = runs[max(runs, key=lambda key: found[key])]
    states = []
    for key in (key for key, owner in runs.items() if owner == run):
        try:
            states.append(StageState.from_json(store.backend.read(key).data))
        except (StoreError, DataError) as error:
            left_out(f"left out: {key}: {error}")
    return sorted(states, key=lambda state: state.started_at)


def whereabouts(thread: int) -> str:
    """Where a thread of this process stands, and which of its workers has been silent longest."""
    return _where(_all_workers(), thread)


def _all_workers() -> list[WorkerState]:
    """The workers of all probes; a probe that fails is told of in the log."""
    workers = []
    for name, probe in list(_PROBES.items()):
        try:
            workers += probe()
        except Exception:
            _LOG.exception("the workers of %s can not be told of", name)
    return workers


def _where(workers: list[WorkerState], thread: int | None = None) -> str:
    """The silent worker if there is one, and the place where the thread (else the main one) is."""
    busy = [worker for worker in workers if worker.in_flight]
    main = threading.main_thread().ident
    place = f"main thread in {_frame(main)}"
    if thread not in (None, main):
        place = f"thread in {_frame(thread)}"
    if not busy:
        return place
    worst = max(busy, key=lambda worker: worker.last_step_s)
    return (
        f"worker {worst.name} (pid {worst.pid} on {worst.node}) {worst.phase}, "
        f"no step for {worst.last_step_s:.0f} s; {place}"
    )


def _frame(thread: int | None) -> str:
    """The innermost frame of this project in the thread, else the innermost of all."""
    frame = sys._current_frames().get(thread or 0)
    innermost = ""
    while frame is not None:
        file = frame.f_code.co_filename
        name = f"{frame.f_code.co_name} ({os.path.basename(file)}:{frame.f_lineno})"
        innermost = innermost or name
        if "still_core" in file:
            return name if name == innermost else f"{name}, at {innermost}"
        frame = frame.f_back
    return innermost or "no frame"


def figures(progress: Progress) -> tuple[Any, ...]:
    """The figures whose change means progress; rates and ages change by themselves."""
    facts = {k: v for k, v in progress.facts.items() if not k.endswith("_s")}
    return progress.done, tuple(sorted(facts.items()))


def _rate(history: deque[tuple[float, int]], now: float) -> float:
    """Units per second since the last entry that is at least `RATE_WINDOW_S` old, or the first."""
    if not history:
        return 0.0
    start = history[0]
    for entry in history:
        if now - entry[0] < RATE_WINDOW_S:
            break
        start = entry
    seconds = now - start[0]
    return (history[-1][1] - start[1]) / seconds if seconds > 0 else 0.0
