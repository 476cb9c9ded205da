"""Named places at which a test may kill the process, to show what a crash leaves behind.

`STILL_CRASHPOINT=name` kills at the first arrival, `name:3` at the third. The variable is read
once, at import: without it a crash point costs one test of a module constant.
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
    "mid-manifest",
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
    "mid-shard",
    "after-shard",
    "before-pack",
    "after-pack",
    "mid-compaction",
)
"""The crash points of the store and the bank. Other rooms name their own."""

_ARMED, _, _COUNT = os.environ.get("STILL_CRASHPOINT", "").partition(":")
_arrivals_left = int(_COUNT or 1)


def crashpoint(name: str) -> None:
    """Kill this process with SIGKILL where the environment asks for it; else do nothing."""
    if _ARMED and name == _ARMED:
        _arrive()


def _arrive() -> None:
    global _arrivals_left
    _arrivals_left -= 1
    if _arrivals_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
