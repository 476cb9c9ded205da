"""Signals end a run and every process below it, whatever its main thread is blocked in."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

RUN = """
import ctypes, signal, subprocess, sys, time
from deployments.cli import ending
ending.GRACE_S, ending.DEAF_S = 0.5, 0.2
ending.end_on_signals()
subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600; true"])
def deaf(number, frame): pass
def block():
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)
def leave():
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("put away", flush=True)
def replaced():
    signal.signal(signal.SIGTERM, deaf)
    print("ready", flush=True)
    while True:
        time.sleep(600)
try:
    {"block": block, "leave": leave, "replaced": replaced}[sys.argv[1]]()
finally:
    ending.end_if_asked()
"""


@pytest.mark.parametrize(
    ("way", "number"),
    [
        ("leave", signal.SIGINT),
        ("leave", signal.SIGTERM),
        ("block", signal.SIGTERM),
        ("block", signal.SIGINT),
        ("replaced", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_program_with_one_line_and_all_that_it_started(
    way: str, number: int
) -> None:
    command = [sys.executable, "-c", RUN, way]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        below = wait_for_children(process.pid, count=4)
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + number
    assert err.split("\n") == ["", "still: interrupted; the same command goes on from here", ""]
    assert out == ("put away\n" if way == "leave" else "")
    assert not any(is_alive(child) for child in below)


def test_a_signal_before_anyone_asks_ends_all_the_same() -> None:
    early = RUN[: RUN.index("try:\n    {")] + 'print("ready", flush=True)\ntime.sleep(600)\n'
    with subprocess.Popen(
        [sys.executable, "-c", early], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        below = wait_for_children(process.pid, count=4)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.endswith("\nstill: interrupted; the same command goes on from here\n")
    assert not any(is_alive(child) for child in below)


def is_alive(process: psutil.Process) -> bool:
    """Killed ones may wait a moment to be collected."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_children(pid: int, *, count: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        below = psutil.Process(pid).children(recursive=True)
        if len(below) == count:
            return below
        time.sleep(0.05)
    raise AssertionError("the children did not start")
