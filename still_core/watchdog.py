"""Ends work that stands still, with its cause: a stuck stage must not hold a cluster for a night.

with watched("build-d0", limit_s) as watchdog     -> watchdog.hear(progress) on every report
    no figure changes for `limit_s`               -> stacks of all threads into the log
                                                  -> the working thread is interrupted: StalledError
    it does not end within `GRACE_S` (C code)     -> the process is ended; what is stored stays

The interrupt is a kind of `KeyboardInterrupt`: Ray, blocked in `get`, lets no other one through.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from still_core.errors import StalledError, explain
from still_core.heartbeat import figures, whereabouts
from still_core.progress import Progress
from still_core.stacks import thread_stacks

log = logging.getLogger(__name__)

GRACE_S = 60.0
EXIT_CODE = 70
"""`EX_SOFTWARE`; only where even the interrupt did not end the work."""
_SIGNAL = signal.SIGUSR1


class _Interrupt(KeyboardInterrupt):
    """Raised inside the stuck thread."""


class Watchdog:
    """Remembers when the watched work last advanced. Threads may share it."""

    def __init__(self, what: str, limit_s: float) -> None:
        self.what, self.limit_s = what, limit_s
        self.cause = ""
        """Why the work was ended; empty while it was not."""
        self._figures: tuple[Any, ...] = ()
        self._advanced = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def hear(self, progress: Progress) -> None:
        """A report; it counts where a figure changed."""
        now = figures(progress)
        if now != self._figures:
            self._figures, self._advanced = now, time.monotonic()

    def left_s(self) -> float:
        """Seconds until the work counts as stuck."""
        return self._advanced + self.limit_s - time.monotonic()

    def _watch(self, worker: int) -> None:
        while (left := self.left_s()) > 0:
            if self._over.wait(left):
                return
        self._describe(worker)
        with self._lock:
            if self._over.is_set():
                return
            _interrupt(worker)
        if not self._over.wait(GRACE_S):
            log.critical("%s; it does not answer, so the process ends", self.cause)
            os._exit(EXIT_CODE)

    def _describe(self, worker: int) -> None:
        """Where the work stands, as `cause` and in the log; or why that can not be told."""
        where = None
        try:
            where = whereabouts(worker)
            told, stacks = "the stacks are in the log", thread_stacks()
        except Exception as error:
            # The work must end whatever its description dies of.
            told = f"more can not be told ({type(error).__name__}: {error})"
            stacks = traceback.format_exc()
        self.cause = explain(
            f"{self.what} made no progress for {self.limit_s:g} s and was ended",
            got=where,
            remedy=f"{told}; the same command goes on from what is stored",
        )
        log.error("%s\n%s", self.cause, stacks)

    def close(self) -> None:
        """The work is over: no interrupt comes any more."""
        with self._lock:
            self._over.set()


_current: ContextVar[Watchdog | None] = ContextVar("watchdog", default=None)


@contextmanager
def watched(what: str, limit_s: float) -> Iterator[Watchdog]:
    """Watch over the work inside the block, done by this thread.

    Raises:
        StalledError: it was ended because it stood still.
    """
    watchdog = Watchdog(what, limit_s)
    worker = threading.get_ident()
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(_SIGNAL, _raise_interrupt)
    thread = threading.Thread(
        target=watchdog._watch, args=(worker,), name=f"watchdog {what}", daemon=True
    )
    token = _current.set(watchdog)
    thread.start()
    try:
        yield watchdog
    except KeyboardInterrupt:
        if not watchdog.cause:
            raise
        raise StalledError(watchdog.cause) from None
    finally:
        watchdog.close()
        _current.reset(token)
        if before is not None:
            signal.signal(_SIGNAL, before)


def current_watchdog() -> Watchdog | None:
    """The watchdog over the work that this thread does, if there is one."""
    return _current.get()


def _raise_interrupt(number: int, frame: Any) -> None:
    raise _Interrupt


def _interrupt(worker: int) -> None:
    """Raise `_Interrupt` in the thread; in the main thread also out of a blocking call."""
    if worker == threading.main_thread().ident:
        signal.pthread_kill(worker, _SIGNAL)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(worker), ctypes.py_object(_Interrupt)
        )
