"""One worker process, seen from its owner: started when needed, killed at a deadline from
outside."""

from __future__ import annotations

import json
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


class DeadlineExceeded(Exception):
    """The worker did not answer in time; it has been killed."""


class WorkerDied(Exception):
    """The worker ended by itself in the middle of a request."""


def _python_path() -> str:
    """Where the worker finds this package and its dependencies, and nothing else."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys([root, *(entry for entry in sys.path if entry)]))


class WorkerProcess:
    """A worker, used by one thread at a time."""

    def __init__(self, *, memory_mb: int, module: str = "still_core.verify.worker") -> None:
        self._memory_mb = memory_mb
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self.served = 0
        """Requests answered by the present process."""

    @property
    def pid(self) -> int | None:
        """Process id, None while no process lives."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and wait until it is ready; no clock of an answer runs meanwhile.

        Raises:
            VerifierError: it can not be started.
        """
        if self._process is not None:
            return
        command = [sys.executable, "-P", "-s", "-m", self._module]
        self._process = subprocess.Popen(
            [*command, str(self._memory_mb), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": _python_path(), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        self.served = 0
        try:
            self._receive(time.monotonic() + START_LIMIT_S)
        except (DeadlineExceeded, WorkerDied) as error:
            raise VerifierError(
                explain(
                    "a verifier worker does not start",
                    got=str(error) or type(error).__name__,
                    remedy=f"try `{' '.join(command)} {self._memory_mb} $$`, or raise memory_mb",
                )
            ) from error

    def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The worker's reply to one request.

        Raises:
            DeadlineExceeded: not answered within `deadline_s`; the process was killed.
            WorkerDied: the process ended without a reply.
        """
        self.start()
        until = time.monotonic() + deadline_s
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode_message(request))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerDied(self._bury()) from None
        reply = self._receive(until)
        if "loading" in reply:  # the worker imports SymPy: our time, not the answer's
            self._receive(time.monotonic() + START_LIMIT_S)
            reply = self._receive(time.monotonic() + deadline_s)
        self.served += 1
        return reply

    def kill(self) -> None:
        """SIGKILL, and collect the process."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._bury()

    def _bury(self) -> str:
        process, self._process = self._process, None
        assert process is not None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # Unsent bytes of a dead worker's request; the request is answered by its owner.
                    continue
        return f"exit status {process.wait()}"

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
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        chunks = b""
        while len(chunks) < size:
            remaining = until - time.monotonic()
            if remaining <= 0 or not poller.poll(max(1.0, remaining * 1000)):
                if time.monotonic() < until:
                    continue
                self.kill()
                raise DeadlineExceeded
            chunk = os.read(descriptor, size - len(chunks))
            if not chunk:
                raise WorkerDied(self._bury())
            chunks += chunk
        return chunks
