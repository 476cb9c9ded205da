"""What came of one run: plain data, safe to store and to send."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class SandboxStatus(StrEnum):
    """How a run ended. Says nothing about whether its answer is right."""

    OK = "ok"
    """Came to its end without an uncaught exception, or left with exit code 0."""
    ERROR = "error"
    """An uncaught exception, or an exit code other than 0."""
    TIMEOUT = "timeout"
    """Killed at the deadline."""
    MEMORY = "memory"
    """Met the memory limit: MemoryError, or killed for the sum of its processes."""
    KILLED = "killed"
    """Ended by a signal: a crash, or a forbidden system call."""
    ENDED = "ended"
    """The session had ended before this block; it was not run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxResult:
    """One run. All text in it was written by the code that ran: treat it as hostile."""

    status: SandboxStatus
    stdout: str = ""
    """Beginning (of a session's block: beginning and end) of the output, bytes that are not UTF-8
    replaced."""
    stderr: str = ""
    seconds: float = 0.0
    """Wall time from handing over the code to its end."""
    exit_code: int | None = None
    """None where a signal ended it, and for a block whose session goes on."""
    signal: int | None = None
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    stdout_bytes: int = 0
    """Bytes written, kept or not."""
    stderr_bytes: int = 0
    peak_memory_mb: float = 0.0
    """Largest resident set of a process of the run, in MiB, interpreter included; 0 if unknown."""
    error: str = ""
    """Name of the uncaught exception's class, as the code itself reports it."""
    value: Any = None
    """The JSON value asked for, strictly parsed; None where `value_defect` is set."""
    value_defect: str = ""
    """Why there is no value: 'none', 'too long', 'too deep', 'not JSON'. Empty where there is."""
    missing_layers: tuple[str, ...] = ()
    """Layers of isolation that this run did without, by the caller's explicit wish."""

    def lost_its_driver(self) -> bool:
        """Whether it ended because the place itself died (the host's memory ran out, or somebody
        killed it), and not by the code."""
        return (
            self.status is SandboxStatus.KILLED and self.signal is None and self.exit_code is None
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        row = asdict(self)
        row["status"] = self.status.value
        row["missing_layers"] = list(self.missing_layers)
        return row
