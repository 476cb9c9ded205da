"""One isolated place for one run or one session, as the host sees it: used once, then destroyed.

channels + pidfd -> wait until ready -> hand over code -> read, with a deadline -> kill -> Outcome
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from still_core.errors import SandboxError, explain
from still_core.sandbox.capture import Capture
from still_core.sandbox.limits import Layer, Limits, remedy
from still_core.sandbox.memory import tree_memory_mb
from still_core.sandbox.result import SandboxResult, SandboxStatus
from still_core.sandbox.wire import WireDefect, strict_json

MAX_DATAGRAM = 200_000
START_LIMIT_S = 60.0
"""A cell that is not ready by then will never be; a loaded machine needs a second or two."""
SAMPLE_S = 0.05
"""How often the memory of several processes is added up."""
BURIAL_LIMIT_S = 10.0


class CellDied(SandboxError):
    """It came to its end before any code was handed over; another may live."""


class Ends(NamedTuple):
    """The host's ends of a cell's channels."""

    control: socket.socket
    out: int
    err: int


@dataclass(slots=True)
class _Reply:
    """What the executor said of itself, and what the driver said of the executor."""

    error: str = ""
    value: Any = None
    value_defect: str = "none"
    replied: bool = False
    ended: bool = False
    exit_code: int | None = None
    signal: int | None = None
    peak_mb: float = 0.0


class Cell:
    """The host's side of one place for code. One thread at a time."""

    def __init__(self, ends: Ends, limits: Limits) -> None:
        self._control = ends.control
        self._limits = limits
        self._captures = tuple(
            Capture(each, limit=limits.output_bytes) for each in (ends.out, ends.err)
        )
        self._descriptors = (ends.out, ends.err)
        for each in self._descriptors:
            os.set_blocking(each, False)
        self._pidfd: int | None = None
        self._missing: tuple[str, ...] | None = None
        self._closed = False
        self.blocks = 0
        """Runs handed over so far."""

    @property
    def _childless(self) -> bool:
        """Whether the executor, whose end the driver reports, was the only process."""
        return not self._limits.child_processes and not self._missing

    @property
    def alive(self) -> bool:
        """Whether more code can be handed over."""
        return not self._closed

    def wait_ready(self) -> None:
        """Wait until the isolation stands.

        Raises:
            SandboxError: a layer is missing, or the cell died.
        """
        if self._missing is not None and self._pidfd is not None:
            return
        until = time.monotonic() + START_LIMIT_S
        while self._pidfd is None or self._missing is None:
            self._control.settimeout(max(0.001, until - time.monotonic()))
            try:
                event, _ = self._receive_event()
            except (TimeoutError, OSError, WireDefect) as error:
                self.close()
                raise CellDied(
                    explain(
                        "a sandbox did not start",
                        got=str(error) or type(error).__name__,
                        remedy="look for memory pressure, or a process limit of this user",
                    )
                ) from error
            if event.get("event") == "refused":
                self.close()
                layer = Layer(event["layer"])
                raise SandboxError(
                    explain(
                        f"sandbox layer {layer.value} is missing",
                        got=event["reason"],
                        remedy=remedy(layer),
                    )
                )
            if event.get("event") == "ready":
                self._missing = tuple(event["missing"])
        if select.select([self._pidfd], [], [], 0)[0]:
            self.close()
            raise CellDied(
                explain(
                    "a sandbox died before it was used",
                    remedy="look for memory pressure, or for who kills processes",
                )
            )
        self._control.setblocking(False)

    def run(
        self,
        code: str,
        stdin: str,
        *,
        timeout_s: float,
        program: bool,
        value_of: str | None = None,
    ) -> SandboxResult:
        """Hand over code and wait for its end, at most `timeout_s` seconds.

        Args:
            code: Python source.
            stdin: what it reads.
            timeout_s: wall-clock limit; everything is killed at it.
            program: run it to the end of its process; else as one block that leaves its variables.
            value_of: variable whose JSON value is wanted.
        """
        self.wait_ready()
        for capture in self._captures:
            capture.begin(keep_tail=not program)
        self.blocks += 1
        nonce = secrets.token_hex(16)
        job = {"nonce": nonce, "program": program, "value": value_of, "number": self.blocks}
        started = time.monotonic()
        reply = _Reply()
        status = None
        try:
            self._send(job, code, stdin)
        except OSError:
            # Killed between two blocks, by a signal that an earlier block left behind.
            status = SandboxStatus.KILLED
        if status is None:
            status = self._converse(reply, nonce, started + timeout_s, program=program)
        if status is not None or reply.ended:
            self.close(ended=status is None and self._childless)
        seconds = time.monotonic() - started
        return self._result(status or _judge(reply), reply, seconds)

    def _send(self, job: dict[str, Any], code: str, stdin: str) -> None:
        """Code and input travel in memory files, so that their length does not matter."""
        files = []
        try:
            for text in (code, stdin):
                files.append(os.memfd_create("sandbox", os.MFD_CLOEXEC))
                data = memoryview(text.encode("utf-8", "surrogatepass"))
                while data:
                    data = data[os.write(files[-1], data) :]
            os.lseek(files[1], 0, os.SEEK_SET)
            socket.send_fds(self._control, [json.dumps(job).encode()], files)
        finally:
            for each in files:
                os.close(each)

    def _converse(
        self, reply: _Reply, nonce: str, deadline: float, *, program: bool
    ) -> SandboxStatus | None:
        """Read until the run is over; a status where it was ended from here."""
        assert self._pidfd is not None
        poller = select.poll()
        for each in (*self._descriptors, self._control.fileno(), self._pidfd):
            poller.register(each, select.POLLIN)
        sampled = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= deadline:
                return SandboxStatus.TIMEOUT
            wait_s = deadline - now
            if self._limits.child_processes:
                wait_s = min(wait_s, SAMPLE_S)
                if now - sampled >= SAMPLE_S:
                    sampled = now
                    used = tree_memory_mb(self._pidfd)
                    reply.peak_mb = max(reply.peak_mb, used)
                    if used > self._limits.memory_mb:
                        return SandboxStatus.MEMORY
            ready = {each for each, _ in poller.poll(max(1, wait_s * 1000))}
            for descriptor, capture in zip(self._descriptors, self._captures, strict=True):
                if descriptor in ready and not capture.drain():
                    poller.unregister(descriptor)
            if self._control.fileno() in ready and not self._hear(reply, nonce):
                return SandboxStatus.KILLED
            if reply.ended and not program:
                return SandboxStatus.KILLED
            if reply.ended or (reply.replied and not program):
                break
            if self._pidfd in ready and self._control.fileno() not in ready:
                return SandboxStatus.KILLED
        if reply.ended and not self._childless:
            # Every process of the run is dead before its last words count.
            self._bury()
        for capture in self._captures:
            capture.drain()
        return None

    def _hear(self, reply: _Reply, nonce: str) -> bool:
        """Take one event into `reply`; False where the other end is not the driver we started."""
        try:
            event, payload = self._receive_event()
        except BlockingIOError:
            return True
        except (OSError, WireDefect):
            return False
        if event.get("nonce") != nonce:
            return False
        reply.peak_mb = max(reply.peak_mb, event.get("peak_kb", 0) / 1024)
        if event["event"] == "reply":
            if not reply.replied:
                reply.replied = True
                _read_reply(reply, payload, self._limits.value_bytes)
        elif event["event"] == "end":
            reply.ended = True
            reply.exit_code, reply.signal = event["exit"], event["signal"]
        return True

    def _receive_event(self) -> tuple[dict[str, Any], bytes]:
        """One event of the driver's and its payload.

        Raises:
            WireDefect: not an event.
            OSError: the channel is closed (EOFError's kin), or nothing came in time.
        """
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_DATAGRAM, 1)
        for each in descriptors:
            if self._pidfd is None:
                self._pidfd = each
            else:
                os.close(each)
        if not data:
            raise ConnectionError("the sandbox hung up")
        event = strict_json(data, max_bytes=4096)
        if not isinstance(event, dict):
            raise WireDefect("not an event")
        if not event.get("bytes"):
            return event, b""
        # The payload follows at once, from the same process.
        with _blocking(self._control):
            return event, self._control.recv(MAX_DATAGRAM)

    def _result(self, status: SandboxStatus, reply: _Reply, seconds: float) -> SandboxResult:
        out, err = self._captures
        return SandboxResult(
            status=status,
            stdout=out.text(),
            stderr=err.text(),
            seconds=seconds,
            exit_code=reply.exit_code,
            signal=reply.signal,
            stdout_truncated=out.truncated,
            stderr_truncated=err.truncated,
            stdout_bytes=out.total,
            stderr_bytes=err.total,
            peak_memory_mb=round(reply.peak_mb, 1),
            error=reply.error,
            value=reply.value,
            value_defect=reply.value_defect,
            missing_layers=self._missing or (),
        )

    def _bury(self) -> None:
        """Kill the run's first process, which kills all, and wait until none is left."""
        if self._pidfd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if not select.select([self._pidfd], [], [], BURIAL_LIMIT_S)[0]:
            raise SandboxError(
                explain(
                    "a killed sandbox does not end",
                    remedy="look for processes in uninterruptible sleep (ps axo stat,pid)",
                )
            )

    def close(self, *, ended: bool = False) -> None:
        """Kill everything inside and give back the descriptors. Safe to call again.

        Args:
            ended: nothing is left inside but the driver, on its way out.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not ended:
                self._bury()
                for capture in self._captures:
                    capture.drain()
        finally:
            self._control.close()
            for each in (*self._descriptors, self._pidfd):
                if each is not None:
                    os.close(each)
            self._pidfd = None


@contextlib.contextmanager
def _blocking(channel: socket.socket) -> Any:
    before = channel.gettimeout()
    channel.settimeout(START_LIMIT_S)
    try:
        yield
    finally:
        channel.settimeout(before)


def _read_reply(reply: _Reply, payload: bytes, value_bytes: int) -> None:
    """Take the executor's own words into `reply`: hostile, so bounded and strictly parsed."""
    head, _, value = payload.partition(b"\n")
    try:
        said = strict_json(head, max_bytes=1024)
        if not isinstance(said, dict):
            raise WireDefect("not JSON")
        error, defect = said.get("error"), said.get("defect")
        if not isinstance(error, str) or not isinstance(defect, str):
            raise WireDefect("not JSON")
        reply.error, reply.value_defect = error, defect[:20]
        if not defect:
            reply.value = strict_json(value, max_bytes=value_bytes)
    except WireDefect as broken:
        reply.value, reply.value_defect = None, str(broken)


def _judge(reply: _Reply) -> SandboxStatus:
    if reply.signal is not None:
        return SandboxStatus.KILLED
    if reply.error == "MemoryError":
        return SandboxStatus.MEMORY
    if reply.error or reply.exit_code:
        return SandboxStatus.ERROR
    return SandboxStatus.OK
