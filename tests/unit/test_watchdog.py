"""Work that stands still is ended with its cause, whatever it is blocked in."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

import pytest

from still_core.errors import StalledError
from still_core.heartbeat import WorkerState, forget_workers, watch_workers
from still_core.progress import Progress
from still_core.watchdog import current_watchdog, watched


def told(done: int, **facts: float) -> Progress:
    return Progress(stage="s", done=done, total=9, unit="rows", facts=facts)


def test_a_stuck_child_is_named_its_stacks_are_logged_and_the_stage_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = time.monotonic()
    with (
        caplog.at_level(logging.ERROR, logger="still_core.watchdog"),
        pytest.raises(StalledError, match=r"stage s made no progress for 0.3 s.*main thread in"),
        watched("stage s", 0.3),
    ):
        subprocess.run(["sleep", "60"], check=True)
    assert time.monotonic() - began < 5
    assert "subprocess.py" in caplog.text


def test_the_worker_that_was_silent_longest_is_named() -> None:
    worker = WorkerState(
        name="rank 1",
        phase="training",
        in_flight=1,
        oldest_s=9.0,
        last_step_s=9.0,
        restarts=0,
        pid=77,
        node="gpu-3",
        last_failure="",
    )
    watch_workers("test", lambda: [worker])
    try:
        with (
            pytest.raises(StalledError, match=r"worker rank 1 \(pid 77 on gpu-3\) training"),
            watched("stage s", 0.2),
        ):
            threading.Event().wait(60)
    finally:
        forget_workers("test")


def test_stuck_work_is_ended_though_its_workers_can_not_be_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lost() -> list[WorkerState]:
        raise AttributeError("no report")

    watch_workers("lost pool", lost)
    try:
        with (
            pytest.raises(StalledError, match=r"stage s made no progress.*main thread in"),
            watched("stage s", 0.2),
        ):
            time.sleep(5)
    finally:
        forget_workers("lost pool")
    assert "the workers of lost pool can not be told of" in caplog.text
    assert "no report" in caplog.text


NO_FILES_LEFT = """
import os, resource, tempfile, time
import still_core.watchdog as watchdog
tempfile.gettempdir()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    with watchdog.watched("stage s", 0.2):
        time.sleep(10)
finally:
    for each in taken:
        os.close(each)
"""


def test_stuck_work_is_ended_though_its_stacks_can_not_be_had_and_its_cause_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_FILES_LEFT], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    cause = done.stderr.strip().splitlines()[-1]
    assert "StalledError: stage s made no progress for 0.2 s and was ended" in cause
    assert "main thread in" in cause
    assert "more can not be told (OSError: [Errno 24] Too many open files" in cause


def test_figures_that_change_keep_a_stage_alive_and_rates_alone_do_not() -> None:
    with watched("stage s", 0.4) as watchdog:
        assert current_watchdog() is watchdog
        for done in range(8):
            time.sleep(0.1)
            watchdog.hear(told(done))
    assert current_watchdog() is None
    with pytest.raises(StalledError):
        report_rates_alone()


def report_rates_alone() -> None:
    with watched("stage s", 0.4) as watchdog:
        for _ in range(50):
            time.sleep(0.1)
            watchdog.hear(told(3, tokens_per_s=time.monotonic()))


def test_the_users_own_interrupt_and_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyboardInterrupt), watched("stage s", 60):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="mine"), watched("stage s", 60):
        raise ValueError("mine")


def test_work_in_another_thread_is_ended_too() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with watched("stage s", 0.2):
                while True:
                    time.sleep(0.01)
        except StalledError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert len(caught) == 1


DEADLOCK = """
import ctypes
import still_core.watchdog as watchdog
watchdog.GRACE_S = 0.3
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with watchdog.watched("stage s", 0.2):
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def test_a_deadlock_in_c_ends_the_process_with_the_cause() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEADLOCK], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 70
    assert "it does not answer, so the process ends" in done.stderr
