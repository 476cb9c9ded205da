"""`still watch --once`: one line that says how a stage fares."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.cli.watch import line, watch
from still_core.heartbeat import GIVEN_UP, Heartbeat, StageState, State, WorkerState
from still_core.progress import Progress
from still_core.store import Store


def state(**changes: object) -> StageState:
    row: dict[str, object] = {
        "run": "r",
        "stage": "explore",
        "unit": "problems",
        "done": 30,
        "total": 120,
        "rate": 0.5,
        "seconds_left": 180.0,
        "facts": {"correct": 12.0},
        "workers": [],
        "state": State.RUNNING,
        "where": "",
        "pid": 4,
        "host": "head",
        "started_at": 900.0,
        "written_at": 1000.0,
        "advanced_at": 999.0,
    }
    return StageState(**{**row, **changes})  # type: ignore[arg-type]


def test_a_running_stage_says_done_rate_and_time_left() -> None:
    assert line(state(), 1001.0) == (
        "explore: running, 30/120 problems, 0.5/s, left 3 min 00 s, correct 12"
    )


def test_a_stalled_stage_says_for_how_long_and_where() -> None:
    text = line(state(state=State.STALLED, where="worker rollout-0 (pid 7 on n1)"), 1010.0)
    assert "stalled" in text
    assert "no progress for 11.0 s: worker rollout-0 (pid 7 on n1)" in text


def test_a_silent_stage_says_who_is_not_heard() -> None:
    text = line(state(), 1100.0)
    assert "silent" in text
    assert "not heard for 1 min 40 s (pid 4 on head)" in text


def test_restarts_are_shown_with_their_cause() -> None:
    worker = WorkerState(
        name="rollout-0",
        phase="generating",
        in_flight=2,
        oldest_s=75.0,
        last_step_s=0.1,
        restarts=2,
        pid=9,
        node="n1",
        last_failure="actor died",
    )
    text = line(state(workers=[worker]), 1001.0)
    assert "oldest request 1 min 15 s" in text
    assert "rollout-0 restarted 2 times, last because actor died" in text
    lost = replace(worker, phase=GIVEN_UP, in_flight=0)
    text = line(state(workers=[lost]), 1001.0)
    assert "rollout-0 given up, because actor died" in text


def test_large_figures_are_shown_whole() -> None:
    text = line(state(rate=1234.5, facts={"rollouts": 123456.0, "loss": 0.82143}), 1001.0)
    assert ", 1234/s, " in text
    assert text.endswith(", loss 0.821, rollouts 123456")


def test_once_prints_a_line_per_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat = Heartbeat(Store(tmp_path), "run-1", write_every_s=0.01)
    beat(Progress(stage="distil", done=5, total=5, unit="rows"))
    deadline = time.monotonic() + 5
    while not list(tmp_path.glob("runs/run-1/heartbeat/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch("run-1", store=str(tmp_path), once=True)
    assert capsys.readouterr().out == "distil: ended, 5/5 rows\n"


def test_a_run_that_was_never_heard_of_is_said_to_be_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch("nobody", store=str(tmp_path), once=True)
    assert capsys.readouterr().out.startswith("no heartbeat of run nobody")
