"""Heartbeats: what is written, when, and what a reader makes of it."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from deployments.cli.watch import line
from still_core.errors import ConfigError
from still_core.heartbeat import (
    Heartbeat,
    StageState,
    State,
    WorkerState,
    forget_workers,
    heartbeats_of_stage,
    read_heartbeats,
    watch_workers,
)
from still_core.progress import Progress
from still_core.store import Store
from still_core.store.backend import Stat


def told(done: int, total: int | None = 10, stage: str = "explore", **facts: float) -> Progress:
    return Progress(stage=stage, done=done, total=total, unit="problems", facts=facts)


def wait_for(store: Store, run: str, state: State, *, seconds: float = 5.0) -> StageState:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for found in read_heartbeats(store, run):
            if found.state is state:
                return found
        time.sleep(0.02)
    raise AssertionError(f"no {state} heartbeat within {seconds} s")


def worker(**changes: object) -> WorkerState:
    row = {
        "name": "rollout-1",
        "phase": "generating",
        "in_flight": 3,
        "oldest_s": 12.0,
        "last_step_s": 40.0,
        "restarts": 0,
        "pid": 77,
        "node": "gpu-3",
        "last_failure": "",
    }
    return WorkerState(**{**row, **changes})  # type: ignore[arg-type]


def test_a_stage_s_figures_and_workers_are_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    watch_workers("test", lambda: [worker()])
    try:
        beat = Heartbeat(store, "run-1", write_every_s=0.05)
        beat(told(4, correct=2.0))
        found = wait_for(store, "run-1", State.RUNNING)
    finally:
        forget_workers("test")
        beat.close()
    assert (found.stage, found.done, found.total, found.unit) == ("explore", 4, 10, "problems")
    assert found.facts == {"correct": 2.0}
    assert found.workers == [worker()]
    assert found.oldest_s == 12.0


def test_rate_and_time_left_follow_from_what_was_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    beat = Heartbeat(store, "run-1", write_every_s=0.05)
    beat(told(0, total=100))
    time.sleep(0.4)
    beat(told(40, total=100))
    time.sleep(0.2)
    (found,) = read_heartbeats(store, "run-1")
    beat.close()
    seconds = found.written_at - found.started_at
    assert 0.4 <= seconds <= 2.0
    assert abs(found.rate - 40 / seconds) < 0.01 * found.rate
    assert found.seconds_left is not None
    assert abs(found.seconds_left - 60 / found.rate) < 1e-6


def test_the_last_progress_ends_the_stage_and_the_thread(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = threading.active_count()
    beat = Heartbeat(store, "run-1", write_every_s=60.0)
    beat(told(3))
    beat(told(10))
    found = wait_for(store, "run-1", State.ENDED)
    assert (found.done, found.seconds_left, found.workers) == (10, 0.0, [])
    time.sleep(0.05)
    assert threading.active_count() == before


def test_a_stage_that_stands_still_is_named_with_its_silent_worker_and_its_stacks(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    silent = worker(name="rollout-2", last_step_s=99.0)
    watch_workers("test", lambda: [worker(), silent, worker(in_flight=0, last_step_s=500.0)])
    beat = Heartbeat(store, "run-1", write_every_s=0.05, stall_limit_s=0.2)
    try:
        # A rate changes by itself and is no progress.
        beat(told(4, tokens_per_s=10.0))
        time.sleep(0.15)
        beat(told(4, tokens_per_s=9.0))
        found = wait_for(store, "run-1", State.STALLED)
    finally:
        forget_workers("test")
        beat.close()
    assert "worker rollout-2 (pid 77 on gpu-3) generating, no step for 99 s" in found.where
    assert "main thread in" in found.where
    stacks = (tmp_path / "runs/run-1/heartbeat/explore.stacks.txt").read_text()
    assert "most recent call first" in stacks
    assert "test_heartbeat.py" in stacks


def test_a_stalled_stage_that_goes_on_is_running_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    beat = Heartbeat(store, "run-1", write_every_s=0.05, stall_limit_s=0.2)
    beat(told(4))
    wait_for(store, "run-1", State.STALLED)
    beat(told(5))
    found = wait_for(store, "run-1", State.RUNNING)
    beat.close()
    assert found.where == ""


def test_a_heartbeat_that_is_not_renewed_is_silent_to_its_reader(tmp_path: Path) -> None:
    store = Store(tmp_path)
    beat = Heartbeat(store, "run-1", write_every_s=0.05)
    beat(told(4))
    found = wait_for(store, "run-1", State.RUNNING)
    beat.close()
    assert found.seen_at(found.written_at + 29) is State.RUNNING
    assert found.seen_at(found.written_at + 31) is State.SILENT


def test_without_a_name_the_run_heard_of_last_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run in ("older", "newer"):
        beat = Heartbeat(store, run, write_every_s=0.05)
        beat(told(10))
        wait_for(store, run, State.ENDED)
    assert {state.run for state in read_heartbeats(store)} == {"newer"}


def test_a_store_that_can_not_be_written_does_not_stop_the_stage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    beat = Heartbeat(Store(blocked), "run-1", write_every_s=0.01)
    beat(told(1))
    time.sleep(0.05)
    beat(told(2))
    beat.close()
    assert "heartbeat of run run-1 was not written" in caplog.text


def test_a_stage_that_fails_is_shown_with_its_cause(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> None:
        with heartbeats_of_stage():
            Heartbeat(store, "run-1", write_every_s=60.0)(told(4))
            raise ValueError("row 3\nhas no gold")

    with pytest.raises(ValueError, match="no gold"):
        fail()
    found = wait_for(store, "run-1", State.FAILED)
    assert found.where == "ValueError: row 3 has no gold"
    assert "failed" in line(found, time.time())
    assert found.where in line(found, time.time())
    # Nothing more is heard of it, and that is no news.
    assert found.seen_at(time.time() + 3600) is State.FAILED


class Held:
    """A store whose writes begin and then wait until they are let go."""

    def __init__(self, store: Store) -> None:
        self.backend = self
        self.begun, self.go = threading.Event(), threading.Event()
        self._store = store

    def put(self, key: str, data: bytes) -> None:
        self.begun.set()
        assert self.go.wait(5)
        self._store.backend.put(key, data)


def test_the_last_progress_is_written_though_it_came_during_a_write(tmp_path: Path) -> None:
    held = Held(Store(tmp_path))
    beat = Heartbeat(held, "run-1", write_every_s=0.01)
    beat(told(3))
    assert held.begun.wait(5)
    beat(told(10))
    held.go.set()
    assert wait_for(Store(tmp_path), "run-1", State.ENDED).done == 10


def test_a_failure_during_a_write_is_shown_with_its_cause(tmp_path: Path) -> None:
    held = Held(Store(tmp_path))

    def fail() -> None:
        with heartbeats_of_stage():
            Heartbeat(held, "run-1", write_every_s=0.01)(told(3))
            assert held.begun.wait(5)
            # The block ends, and waits for the write, meanwhile.
            threading.Timer(0.3, held.go.set).start()
            raise ValueError("no gold")

    with pytest.raises(ValueError, match="no gold"):
        fail()
    assert wait_for(Store(tmp_path), "run-1", State.FAILED).where == "ValueError: no gold"


def test_heartbeats_go_on_though_some_workers_can_not_be_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lost() -> list[WorkerState]:
        raise AttributeError("no report")

    store = Store(tmp_path)
    watch_workers("lost pool", lost)
    watch_workers("test", lambda: [worker()])
    beat = Heartbeat(store, "run-1", write_every_s=0.05)
    try:
        beat(told(4))
        assert wait_for(store, "run-1", State.RUNNING).workers == [worker()]
        beat(told(10))
        wait_for(store, "run-1", State.ENDED)
    finally:
        forget_workers("lost pool")
        forget_workers("test")
        beat.close()
    assert "the workers of lost pool can not be told of" in caplog.text


def test_a_stall_is_shown_though_its_stacks_can_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    beat = Heartbeat(store, "run-1", write_every_s=0.05, stall_limit_s=0.2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    beat(told(4))
    assert "main thread in" in wait_for(store, "run-1", State.STALLED).where
    beat.close()
    assert "heartbeat of run run-1 was not written" in caplog.text
    assert "gone" in caplog.text


@pytest.mark.parametrize(
    ("busy", "told_on", "seen"),
    [
        (worker(last_step_s=0.01), True, {State.RUNNING}),
        (worker(last_step_s=9.0), True, {State.RUNNING, State.STALLED}),
        (worker(last_step_s=0.01, in_flight=0), True, {State.RUNNING, State.STALLED}),
        # The clock of a worker stands still while nobody asks it.
        (worker(last_step_s=0.01), False, {State.RUNNING, State.STALLED}),
    ],
)
def test_a_stage_that_is_told_of_while_a_busy_worker_steps_is_not_stalled(
    tmp_path: Path, busy: WorkerState, told_on: bool, seen: set[State]
) -> None:
    store, states = Store(tmp_path), set()
    beat = Heartbeat(store, "run-1", write_every_s=0.02, stall_limit_s=0.4)
    watch_workers("test", lambda: [busy])
    try:
        beat(told(0))
        for _ in range(20):
            time.sleep(0.05)
            states |= {found.state for found in read_heartbeats(store, "run-1")}
            if told_on:
                beat(told(0))
    finally:
        forget_workers("test")
        beat.close()
    assert states == seen


def test_a_stage_that_ends_before_its_total_is_shown_as_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with heartbeats_of_stage():
        Heartbeat(store, "run-1", write_every_s=60.0)(told(4, None))
    assert wait_for(store, "run-1", State.ENDED).workers == []


def ended_run(store: Store, run: str, stage: str = "explore") -> Path:
    """A run with one stage that ended; returns the file of its heartbeat."""
    beat = Heartbeat(store, run, write_every_s=0.05)
    beat(told(10, stage=stage, loss=math.nan))
    wait_for(store, run, State.ENDED)
    beat.close()
    return Path(store.root) / f"runs/{run}/heartbeat/{stage}.json"


def changed(path: Path, **fields: object) -> str:
    row = {**json.loads(path.read_text()), **fields}
    return json.dumps({name: value for name, value in row.items() if value is not ...})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.read_text()[:100],
        lambda path: "[]",
        lambda path: "\0",
        lambda path: changed(path, written_at=...),
        lambda path: changed(path, state="dreaming"),
        lambda path: changed(path, workers=[{"name": "w"}]),
        lambda path: changed(path, facts="none"),
    ],
)
def test_a_heartbeat_that_can_not_be_read_is_left_out_by_name(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    store = Store(tmp_path)
    ended_run(store, "run-1", "explore")
    path = ended_run(store, "run-1", "train")
    text = damage(path)
    path.unlink()
    path.write_text(text)
    left_out: list[str] = []
    assert [found.stage for found in read_heartbeats(store, left_out=left_out.append)] == [
        "explore"
    ]
    (line_of_it,) = left_out
    assert "runs/run-1/heartbeat/train.json" in line_of_it
    assert "\n" not in line_of_it


class Vanishing:
    """A store in which one file goes between the listing and the reading."""

    def __init__(self, store: Store, path: Path) -> None:
        self.backend = self
        self.read = store.backend.read
        self._store, self._path = store, path

    def scan(self, prefix: str) -> list[Stat]:
        found = list(self._store.backend.scan(prefix))
        self._path.unlink()
        return found


def test_a_heartbeat_that_goes_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ended_run(store, "run-1", "explore")
    vanishing = Vanishing(store, ended_run(store, "run-1", "train"))
    left_out: list[str] = []
    (found,) = read_heartbeats(vanishing, "run-1", left_out=left_out.append)
    assert found.stage == "explore"
    assert "not in the store" in left_out[0]


def test_fields_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    path = ended_run(Store(tmp_path), "run-1")
    text = changed(path, mood="good", workers=[{**asdict(worker()), "hat": "red"}])
    path.unlink()
    path.write_text(text)
    (found,) = read_heartbeats(Store(tmp_path))
    assert found.workers == [worker()]
    assert math.isnan(found.facts["loss"])


def test_runs_that_were_not_asked_for_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    older = ended_run(store, "older")
    older.unlink()
    older.write_text("damaged")
    os.utime(older, (1e9, 1e9))
    ended_run(store, "newer")
    left_out: list[str] = []
    for run in ("newer", ""):
        (found,) = read_heartbeats(store, run, left_out=left_out.append)
        assert found.run == "newer"
    assert left_out == []


@pytest.mark.parametrize("run", ["../../etc", "a/../b", "/etc", "."])
def test_a_name_that_climbs_out_of_the_runs_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(ConfigError, match="unusable run"):
        read_heartbeats(Store(tmp_path), run)
