"""What the store needs from the place that holds its bytes: a folder or a bucket.

Every write is all or nothing, and `create` and `replace` are decided by the back end, so two
writers never both win. Nothing renames an object that a reader can see.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol


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
