"""Running model-written Python in isolation.

code -> Sandbox -> a fresh cell (from the warm pool) -> SandboxResult

    with Sandbox(limits=Limits(timeout_s=2)) as sandbox:
        result = sandbox.run("print(6 * 7)")
        with sandbox.session() as session:
            session.run("x = 6")
            session.run("x * 7").stdout  # '42\\n'
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from still_core.closing import Closing
from still_core.errors import ConfigError, explain
from still_core.sandbox.bubblewrap import Backend, BubblewrapBackend
from still_core.sandbox.cell import Cell, CellDied
from still_core.sandbox.limits import OPTIONAL, Limits
from still_core.sandbox.result import SandboxResult, SandboxStatus

MAX_CODE_BYTES = 16 * 2**20
REVIVAL_PAUSES_S = (0.05, 0.5, 0.0)
"""After a run whose place died under it, before the next try: others are dying with it."""


class Sandbox(Closing):
    """Runs code in isolation; every run in a place of its own that nothing else ever uses.

    Use from any number of threads. Pickles as its settings: a copy in another process (a Ray
    actor, a fork) starts its own outer sandbox when first used.

    Args:
        limits: bounds of every run.
        packages: installed distributions that the code may import; none but the standard library
            by default.
        preload: modules imported once, before the runs, which then find them loaded.
        warm: places kept ready in advance; each takes about 10 MiB.
        allow_missing: layers of isolation to do without where they can not be had: weaker. Layers
            that are there are used all the same.
        backend: makes the places, instead of bubblewrap; a function of no arguments.

    Raises:
        ConfigError: `allow_missing` names what can not be done without.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        packages: tuple[str, ...] = (),
        preload: tuple[str, ...] = (),
        warm: int = 2,
        allow_missing: tuple[str, ...] = (),
        backend: Callable[[], Backend] | None = None,
    ) -> None:
        unknown = set(allow_missing) - {layer.value for layer in OPTIONAL}
        if unknown:
            raise ConfigError(
                explain(
                    "allow_missing names a layer that can not be done without",
                    got=", ".join(sorted(unknown)),
                    expected="any of " + ", ".join(sorted(OPTIONAL)),
                )
            )
        self.limits = limits or Limits()
        self._settings: dict[str, Any] = {
            "packages": tuple(packages),
            "preload": tuple(preload),
            "warm": warm,
            "allow_missing": tuple(allow_missing),
            "backend": backend,
        }
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._ready: deque[Cell] = deque()
        make = self._settings["backend"]
        self._backend: Backend = make() if make is not None else self._bubblewrap()
        self._finalizer = weakref.finalize(self, _close_all, self._ready, self._backend)

    def _bubblewrap(self) -> Backend:
        return BubblewrapBackend(
            self.limits,
            packages=self._settings["packages"],
            preload=self._settings["preload"],
            allow_missing=self._settings["allow_missing"],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings alone."""
        return _make, (self.limits, self._settings)

    def close(self) -> None:
        """Kill all that still runs. The sandbox can be used again: it starts anew."""
        with self._lock:
            _close_all(self._ready, self._backend)

    def check(self) -> tuple[str, ...]:
        """Try the isolation out.

        Returns:
            The layers that are missing and may be.

        Raises:
            SandboxError: a layer is missing; the text names it and the remedy.
        """
        return self.run("").missing_layers

    def run(
        self,
        code: str,
        stdin: str = "",
        *,
        timeout_s: float | None = None,
        value_of: str | None = None,
    ) -> SandboxResult:
        """Run a program from its beginning to its end.

        Args:
            code: Python source, run as `__main__`.
            stdin: what the program reads.
            timeout_s: wall-clock seconds; the limits' own by default.
            value_of: a global variable whose value is wanted, as JSON, in `SandboxResult.value`.

        Raises:
            SandboxError: isolation can not be had. What the code does is never an exception.
        """
        limit_s = self.limits.timeout_s if timeout_s is None else timeout_s
        for pause_s in REVIVAL_PAUSES_S:
            result = self._run_once(code, stdin, limit_s, value_of)
            if not result.lost_its_driver():
                break
            # Nothing inside can end the driver, so it was the host's doing: not the code's fault.
            time.sleep(pause_s)
        return result

    def _run_once(
        self, code: str, stdin: str, timeout_s: float, value_of: str | None
    ) -> SandboxResult:
        cell = self._take()
        try:
            return cell.run(
                _checked(code), stdin, timeout_s=timeout_s, program=True, value_of=value_of
            )
        finally:
            cell.close()
            self._refill()

    def session(self) -> SandboxSession:
        """A place that keeps its variables between blocks, for one rollout."""
        cell = self._take()
        self._refill()
        return SandboxSession(cell, self.limits.timeout_s)

    def _take(self) -> Cell:
        """A cell that nobody has used."""
        if os.getpid() != self._owner:
            # After a fork the parent's channels are here too, and not ours to use.
            self._finalizer.detach()
            self._open()
        attempts = len(REVIVAL_PAUSES_S) + self._settings["warm"]
        for attempt in range(attempts):
            with self._lock:
                cell = self._ready.popleft() if self._ready else None
            cell = cell or self._backend.spawn()
            try:
                cell.wait_ready()
            except CellDied:
                # The outer sandbox died, and with it those that waited for work.
                if attempt == attempts - 1:
                    raise
                time.sleep(REVIVAL_PAUSES_S[0])
            else:
                return cell
        raise AssertionError("unreachable")

    def _refill(self) -> None:
        """Have cells made for later; not before a run, which they would compete with."""
        with self._lock:
            while len(self._ready) < self._settings["warm"]:
                self._ready.append(self._backend.spawn())


class SandboxSession(Closing):
    """Blocks of code that share their variables. One thread at a time."""

    def __init__(self, cell: Cell, timeout_s: float) -> None:
        self._cell = cell
        self._timeout_s = timeout_s

    @property
    def alive(self) -> bool:
        """Whether a further block can run."""
        return self._cell.alive

    def run(
        self,
        code: str,
        stdin: str = "",
        *,
        timeout_s: float | None = None,
        value_of: str | None = None,
    ) -> SandboxResult:
        """Run one block; the value of a last expression is printed, as in a notebook.

        A block that passes its deadline or kills its process ends the session; those after it get
        the status `ended`. Output of more than `output_bytes` keeps its beginning and its end.
        """
        if not self._cell.alive:
            return SandboxResult(status=SandboxStatus.ENDED, value_defect="none")
        return self._cell.run(
            _checked(code),
            stdin,
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            program=False,
            value_of=value_of,
        )

    def close(self) -> None:
        """Kill all that still runs in it."""
        self._cell.close()


def _make(limits: Limits, settings: dict[str, Any]) -> Sandbox:
    return Sandbox(limits, **settings)


def _close_all(ready: deque[Cell], backend: Backend) -> None:
    while ready:
        ready.popleft().close()
    backend.close()


def _checked(code: str) -> str:
    if len(code) > MAX_CODE_BYTES:
        return 'raise MemoryError("the source is longer than 16 MiB")'
    return code
