"""What the store needs from the place that holds its bytes: a folder or a bucket.

Every write is all or nothing, and `create` and `replace` are decided by the back end, so two
writers never both win. Nothing renames an object that a reader can see.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from still_core.errors import StoreError, explain


class Stat(NamedTuple):
    """One stored object, without its bytes."""

    key: str
    size: int
    modified: float
    """Seconds since the epoch, by the back end's own clock."""


class Tagged(NamedTuple):
    """Bytes with the tag that a conditional replacement names."""

    data: bytes
    tag: str
    modified: float


class Backend(Protocol):
    """Keys are relative to the root and use `/`."""

    root: str
    """Absolute path or `s3://bucket/prefix`, without a trailing slash."""
    is_local: bool

    def check_writable(self) -> None:
        """Raise a one-line StoreError where this root can not be written."""

    def read(self, key: str) -> Tagged:
        """All bytes of `key`; MissingError where it is not there."""

    def download(self, key: str, target: Path) -> None:
        """Write the bytes of `key` to the new file `target`; MissingError where it is not there."""

    def stat(self, key: str) -> Stat | None:
        """Size and time of `key`, None where it is not there."""

    def holds(self, key: str, source: bytes | Path, sha256: str) -> bool:
        """Whether `key` holds the bytes of `source`, as far as it can be told without a transfer.

        Args:
            key: what may stand.
            source: the bytes it should hold.
            sha256: of `source`.
        """

    def put(self, key: str, source: bytes | Path) -> None:
        """Write `key`, whatever stood there; durable on return."""

    def create(self, key: str, data: bytes) -> bool:
        """Write `key` unless it exists; False where another content stands there."""

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        """Write `key` if it still carries `tag`; False where somebody else was first."""

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Everything whose key begins with `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it is not there."""

    def sweep_unfinished(self, *, older_than_s: float, dry_run: bool) -> list[str]:
        """Name, and unless `dry_run` remove, what crashed writers left half done."""

    def now(self) -> float:
        """Seconds since the epoch, by the back end's own clock."""


_REMEDIES = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space in the quota",
    errno.EACCES: "give this user the right to read and write there",
    errno.EROFS: "choose a root that can be written",
    errno.EPERM: "choose a file system with hard links",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`) and run again",
    errno.ENFILE: "end other programs that hold many files open and run again",
    errno.EIO: "check the disk, then run again",
}


def system_failure(what: str, key: str, error: OSError) -> StoreError:
    """One line for what the operating system refused, with a remedy."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0, "mend the cause and run again")
    return StoreError(explain(f"{what} {key}: {reason}", remedy=remedy))
