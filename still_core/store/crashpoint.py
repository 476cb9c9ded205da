"""Named places at which a test may kill the process, to show what a crash leaves behind.

`STILL_CRASHPOINT=name` kills at the first arrival, `name:3` at the third. The variable is read
once, at import: without it a crash point costs one test of a module variable.
"""

from __future__ import annotations

import os
import signal

CRASHPOINTS = (
    "before-object",
    "mid-object",
    "after-object",
    "mid-multipart",
    "before-manifest",
    "mid-create",
    "after-manifest",
    "before-pointer",
    "after-pointer",
    "after-lease",
    "before-renew",
    "before-release",
    "mid-fetch",
    "after-fetch",
    "before-sweep",
    "mid-sweep",
    "before-shard",
    "after-shard",
    "before-pack",
    "after-pack",
    "mid-compaction",
)
"""The crash points of the store and the bank. Other rooms name their own."""

_armed, _, _count = os.environ.get("STILL_CRASHPOINT", "").partition(":")
_arrivals_left = int(_count or 1)


def arm(spec: str) -> None:
    """Set the crash point of this process, as the variable does for a new one; "" disarms."""
    global _armed, _arrivals_left
    _armed, _, count = spec.partition(":")
    _arrivals_left = int(count or 1)


def crashpoint(name: str) -> None:
    """Kill this process with SIGKILL where the environment asks for it; else do nothing."""
    if _armed and name == _armed:
        _arrive()


def _arrive() -> None:
    global _arrivals_left
    _arrivals_left -= 1
    if _arrivals_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
