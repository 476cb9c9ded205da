"""One worker process, seen from its owner: started when needed, killed at a deadline from
outside."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from still_core.errors import VerifierError, explain
from still_core.verify.worker import HEADER, MAX_MESSAGE, encode_message

START_LIMIT_S = 60.0
"""A worker that is not ready by then will never be (a loaded machine needs a second or two)."""
PATIENCE_S = 0.1
"""An answer that takes longer may be one that has to be stopped; few take a tenth of it."""


class DeadlineExceeded(Exception):
    """The worker did not answer in time; it has been killed."""


class WorkerDied(Exception):
    """The worker ended by itself in the middle of a request."""


def _python_path() -> str:
    """Where the worker finds this package and its dependencies, and nothing else."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys([root, *(entry for entry in sys.path if entry)]))


class WorkerProcess:
    """A worker, used by one thread at a time, and the one that will take its place.

    An answer that takes long may be one that never ends: a second process is started while it runs,
    so that the next answer does not wait for one when the first process is killed.
    """

    def __init__(self, *, memory_mb: int, module: str = "still_core.verify.worker") -> None:
        self._memory_mb = memory_mb
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._spare: subprocess.Popen[bytes] | None = None
        self._killed: list[subprocess.Popen[bytes]] = []
        self._needs_sympy = False
        self.served = 0
        """Requests answered by the present process."""
        self.loading_s = 0.0
        """Seconds that the last request waited for an import of SymPy: no time of the answer's."""

    @property
    def pid(self) -> int | None:
        """Process id, None while no process lives."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Have a process that is ready; no clock of an answer runs meanwhile.

        Raises:
            VerifierError: it can not be started.
        """
        if self._process is not None:
            return
        self._process, self._spare = self._spare or self._spawn(), None
        self._killed = [process for process in self._killed if process.poll() is None]
        self.served = 0
        try:
            self._receive(time.monotonic() + START_LIMIT_S)
        except (DeadlineExceeded, WorkerDied) as error:
            command = " ".join([*self._command(), str(self._memory_mb), "$$"])
            raise VerifierError(
                explain(
                    "a verifier worker does not start",
                    got=str(error) or type(error).__name__,
                    remedy=f"try `{command}`, or raise memory_mb",
                )
            ) from error

    def _command(self) -> list[str]:
        return [sys.executable, "-P", "-s", "-m", self._module]

    def _spawn(self) -> subprocess.Popen[bytes]:
        preload = ["sympy"] if self._needs_sympy else []
        return subprocess.Popen(
            [*self._command(), str(self._memory_mb), str(os.getpid()), *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": _python_path(), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The worker's reply to one request.

        Raises:
            DeadlineExceeded: not answered within `deadline_s`; the process was killed.
            WorkerDied: the process ended without a reply.
        """
        self.start()
        self.loading_s = 0.0
        until = time.monotonic() + deadline_s
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode_message(request))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerDied(self._bury()) from None
        reply = self._reply(until)
        if "loading" in reply:  # the worker imports SymPy, and so will those after it
            self._needs_sympy = True
            before = time.monotonic()
            self._receive(before + START_LIMIT_S)
            self.loading_s = time.monotonic() - before
            reply = self._reply(time.monotonic() + deadline_s)
        self.served += 1
        return reply

    def renew(self) -> None:
        """Put a fresh process in the place of this one as soon as one is ready."""
        if self._spare is None:
            self._spare = self._spawn()
        if _has_spoken(self._spare, 0.0):
            self.kill()

    def kill(self) -> None:
        """SIGKILL; the process is collected later, as that may take a while."""
        if self._process is not None:
            _kill(self._process)
            self._killed.append(self._process)
            self._process = None

    def close(self) -> None:
        """Kill and collect all processes."""
        self.kill()
        if self._spare is not None:
            _kill(self._spare)
            self._killed.append(self._spare)
            self._spare = None
        while self._killed:
            self._killed.pop().wait()

    def _bury(self) -> str:
        """Collect a process that ended by itself; how it ended."""
        process, self._process = self._process, None
        assert process is not None
        _close_pipes(process)
        return f"exit status {process.wait()}"

    def _reply(self, until: float) -> dict[str, Any]:
        """The reply to a request; while it is long in coming, another process starts."""
        assert self._process is not None
        patience_s = min(PATIENCE_S, max(0.0, until - time.monotonic()))
        if not _has_spoken(self._process, patience_s) and self._spare is None:
            self._spare = self._spawn()
        return self._receive(until)

    def _receive(self, until: float) -> dict[str, Any]:
        (length,) = HEADER.unpack(self._read(HEADER.size, until))
        if length > MAX_MESSAGE:
            self.kill()
            raise WorkerDied(f"a reply of {length} bytes")
        reply: dict[str, Any] = json.loads(self._read(length, until))
        return reply

    def _read(self, size: int, until: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        chunks = b""
        while len(chunks) < size:
            if not _has_spoken(self._process, max(0.0, until - time.monotonic())):
                self.kill()
                raise DeadlineExceeded
            chunk = os.read(self._process.stdout.fileno(), size - len(chunks))
            if not chunk:
                raise WorkerDied(self._bury())
            chunks += chunk
        return chunks


def _has_spoken(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether there is something to read, or the end of it, within so many seconds."""
    assert process.stdout is not None
    poller = select.poll()
    poller.register(process.stdout.fileno(), select.POLLIN)
    return bool(poller.poll(math.ceil(seconds * 1000)))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # Unsent bytes of a dead worker's request; the request is answered by its owner.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
