"""Ctrl-C and SIGTERM end a run within seconds, with one line, and leave no process behind.

signal -> pipe -> a thread of its own -> `GRACE_S` for the run to put things away
                                      -> every process below this one killed -> exit

Python writes to the pipe before any handler runs, so it does not matter that Ray and Prefect put
handlers of their own in place, nor that the main thread is blocked inside Ray. Nothing is lost:
what is finished stands in the store and in the bank.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 6.0
"""For the bank's last flush, for leases, and for Prefect to hear that the run was cut off."""
DEAF_S = 1.5
"""After which a main thread that did not heed the first signal gets another one."""
KILL_ROUNDS = 20
ADOPT_ORPHANS = 36
"""`PR_SET_CHILD_SUBREAPER` of Linux."""

_received: list[int] = []
_ending = threading.Lock()


def end_on_signals() -> None:
    """From now on SIGINT and SIGTERM end this process and all below it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # For a signal that comes where nobody has said `end_if_asked` yet.
    atexit.register(end_if_asked)
    threading.Thread(target=_end_after_grace, args=(reading,), name="ending", daemon=True).start()


def end_if_asked() -> None:
    """Do not return if a signal has come: what could be put away has been."""
    if _received:
        _end(_received[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt


def _end_after_grace(reading: int) -> None:
    number = 0
    while number not in SIGNALS:
        number = os.read(reading, 1)[0]
    _received.append(number)
    # What is torn down now complains at length; one line says all.
    logging.disable(logging.CRITICAL)
    time.sleep(DEAF_S)
    # Blocked inside Ray, the main thread hears a `KeyboardInterrupt` and no other exception.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(GRACE_S - DEAF_S)
    _end(number)


def _end(number: int) -> None:
    if threading.current_thread() is threading.main_thread():
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
    _ending.acquire()  # never released: this process ends here, whichever thread comes first
    with contextlib.suppress(ValueError, OSError):  # a closed or full standard stream
        print("\nstill: interrupted; the same command goes on from here", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    _kill_all_below()
    os._exit(128 + number)


def _kill_all_below() -> None:
    """Kill every descendant; those whose parent dies meanwhile become children of this process."""
    import psutil

    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)
    for _ in range(KILL_ROUNDS):
        alive = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=0.2)
