"""The backend: an outer sandbox by bubblewrap, and in it a fresh inner one for every run.

guard (outside) -> bwrap -> zygote (inside, trusted) -> per run: namespaces, limits, filter

Bubblewrap builds the root file system once; a run then costs two forks and the making of its own
namespaces instead of a start of bubblewrap and of Python.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Protocol

from still_core.errors import SandboxError, explain
from still_core.sandbox.cell import START_LIMIT_S, Cell, Ends
from still_core.sandbox.limits import Layer, Limits, remedy
from still_core.sandbox.runtime import bubblewrap_arguments, find_runtime
from still_core.sandbox.seccomp import MACHINES, build_filter, this_machine

HERE = Path(__file__).resolve().parent
BOOT = "import os, sys; exec(compile(os.read(int(sys.argv[3]), 2**20), 'guest.py', 'exec'))"
"""The guest's source comes by a descriptor: its folder is not to be seen inside."""
FIRST_USER, NUM_USERS = 61_184, 4_000
"""User ids that own nothing: systemd's range for services without an account of their own."""
DIAGNOSIS_LIMIT_S = 10.0


class Backend(Protocol):
    """Makes cells. Implementations hold one machine's way of isolating."""

    def spawn(self) -> Cell:
        """A new cell, perhaps not yet ready.

        Raises:
            SandboxError: a layer is missing.
        """
        ...

    def close(self) -> None:
        """End everything; cells die with it. Safe to call again."""
        ...


class BubblewrapBackend:
    """One outer sandbox and its zygote, started when first needed and again should it die."""

    def __init__(
        self,
        limits: Limits,
        *,
        packages: tuple[str, ...] = (),
        preload: tuple[str, ...] = (),
        allow_missing: tuple[str, ...] = (),
        bwrap: str = "bwrap",
    ) -> None:
        self._limits = limits
        self._packages = packages
        self._preload = preload
        self._allow_missing = allow_missing
        self._bwrap = bwrap
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._life: int | None = None

    def spawn(self) -> Cell:
        """A new cell; its namespaces are being made while this returns."""
        with self._lock:
            for attempt in range(2):
                if self._control is None:
                    self._start()
                assert self._control is not None
                cell, theirs = _channels(self._limits)
                try:
                    socket.send_fds(self._control, [b"run"], theirs)
                except OSError:
                    cell.close()
                    self._stop()
                    if attempt:
                        raise
                    continue
                finally:
                    for each in theirs:
                        os.close(each)
                return cell
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the outer sandbox and all in it."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        bwrap = shutil.which(self._bwrap)
        if bwrap is None:
            raise SandboxError(_missing(Layer.BUBBLEWRAP, "no program of that name"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        ends_with_us, life = os.pipe()
        runtime = find_runtime(self._packages)
        guest = os.open(HERE / "guest.py", os.O_RDONLY)
        words, folders = bubblewrap_arguments(runtime, self._allow_missing)
        command = [bwrap, *words, runtime.executable, "-S", "-s", "-P", "-B", "-X", "utf8", "-c"]
        kept = [theirs.fileno(), proc, guest]
        command += [BOOT, *map(str, kept)]
        configuration = {
            "command": command,
            "folders": folders,
            "user": FIRST_USER + os.getpid() % NUM_USERS if os.geteuid() == 0 else None,
            "keep": kept,
            "life": ends_with_us,
        }
        with tempfile.TemporaryFile() as errors:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(HERE / "guard.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[*kept, ends_with_us],
                env={},
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            for each in (proc, guest, ends_with_us):
                os.close(each)
            self._life, self._control = life, ours
            assert self._guard.stdin is not None
            # A guard that died already is found out by `_greet`, with its last words.
            with contextlib.suppress(BrokenPipeError), self._guard.stdin as stdin:
                stdin.write(json.dumps(configuration).encode())
            self._greet(ours, runtime.paths, runtime.environment, errors)

    def _greet(
        self,
        control: socket.socket,
        paths: tuple[str, ...],
        environment: dict[str, str],
        errors: IO[bytes],
    ) -> None:
        """Send the zygote its settings and wait for its word.

        Raises:
            SandboxError: it died; its last words are in `errors`.
        """
        control.settimeout(START_LIMIT_S)
        try:
            control.send(json.dumps(self._settings(paths, environment)).encode())
            answer = control.recv(64)
        except OSError as error:
            answer, reason = b"", str(error)
        else:
            reason = ""
        if answer:
            return
        # It first finds out which namespace is missing, unless it sees this process hang up.
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert self._guard is not None
            self._guard.wait(DIAGNOSIS_LIMIT_S)
        self._stop()
        errors.seek(0)
        lines = errors.read(10_000).decode("utf-8", "replace").strip().splitlines()
        named = [line for line in lines if line.startswith("layer ")]
        if named:
            layer, _, reason = named[0].removeprefix("layer ").partition(": ")
            raise SandboxError(_missing(Layer(layer), reason))
        reason = lines[-1] if lines else reason or "no reason given"
        raise SandboxError(_missing(blame(reason), reason))

    def _settings(self, paths: tuple[str, ...], environment: dict[str, str]) -> dict[str, object]:
        limits = self._limits
        machine = this_machine()
        executor = driver = b""
        if machine in MACHINES or Layer.SECCOMP not in self._allow_missing:
            executor = build_filter(machine, child_processes=limits.child_processes)
            driver = build_filter(machine, child_processes=True, driver=True)
        return {
            "paths": paths,
            "preload": self._preload,
            "environment": environment,
            "allow_missing": self._allow_missing,
            "memory_mb": limits.memory_mb,
            "threads": limits.threads,
            "disk_mb": limits.disk_mb,
            "num_files": limits.num_files,
            "open_files": limits.open_files,
            "value_bytes": limits.value_bytes,
            # The deadline is the wall's; this is for a host that can not keep it.
            "cpu_s": int(limits.timeout_s * min(limits.threads, os.cpu_count() or 1)) + 3600,
            "executor_filter": base64.b64encode(executor).decode(),
            "driver_filter": base64.b64encode(driver).decode(),
        }

    def _stop(self) -> None:
        control, guard, life = self._control, self._guard, self._life
        self._control = self._guard = self._life = None
        if control is not None:
            control.close()
        if life is not None:
            os.close(life)
        if guard is not None and guard.returncode is None:
            # Its group: bubblewrap too, and what bubblewrap leaves where it dies in its set-up.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()


def _channels(limits: Limits) -> tuple[Cell, list[int]]:
    """A cell, and the descriptors of its other ends: control, stdout, stderr."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out, err = os.pipe(), os.pipe()
        undo.pop_all()
    return Cell(Ends(ours, out[0], err[0]), limits), [theirs.detach(), out[1], err[1]]


def _missing(layer: Layer, reason: str) -> str:
    return explain(f"sandbox layer {layer.value} is missing", got=reason, remedy=remedy(layer))


def blame(reason: str) -> Layer:
    """The layer that bubblewrap's or the guard's last words are about."""
    text = reason.lower()
    for word, layer in (
        ("mount namespace", Layer.MOUNT),
        ("uid map", Layer.USER),
        ("namespace", Layer.USER),
        ("setres", Layer.USER),
        ("mount", Layer.MOUNT),
        ("bind", Layer.MOUNT),
    ):
        if word in text:
            return layer
    return Layer.BUBBLEWRAP
