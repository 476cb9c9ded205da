"""An append-only log of rows in immutable Parquet shards, safe for any number of writers.

rows -> <prefix>/<time>-<writer>-<sequence>-<rows>-<sha256>.parquet. A shard appears whole by one
conditional put and names its own checksum, so there is no manifest and no shared file to fight
over. A shard that does not fit its name is damaged: it is named, set aside, and never fatal.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING

from still_core.errors import CorruptionError, MissingError
from still_core.store.crashpoint import crashpoint
from still_core.store.manifest import ObjectRef
from still_core.store.store import Store
from still_core.store.tables import encode_table, open_table

if TYPE_CHECKING:
    import pyarrow as pa

CONCURRENT_READS = 16
_NAME = re.compile(r"(\d{13})-([0-9a-f]{12})-(\d{6})-(\d+)-([0-9a-f]{64})\.parquet\Z")


@total_ordering
@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, as its name tells it. Order is age."""

    created_ms: int
    """The writer's clock; it only orders shards."""
    writer: str
    sequence: int
    num_rows: int
    sha256: str
    size: int
    """Bytes, from the listing."""

    @property
    def filename(self) -> str:
        """Its last path segment."""
        age = f"{self.created_ms:013d}-{self.writer}-{self.sequence:06d}"
        return f"{age}-{self.num_rows}-{self.sha256}.parquet"

    def __lt__(self, other: Shard) -> bool:
        return self.filename < other.filename


class ShardLog:
    """Shards below one prefix of a store."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self.damaged: set[str] = set()
        """File names of shards whose bytes do not fit their name."""

    def shards(self) -> list[Shard]:
        """All shards now, oldest first; other files and damaged shards are left out."""
        found = []
        for stat in self._store.backend.scan(f"{self._prefix}/"):
            filename = stat.key[len(self._prefix) + 1 :]
            shard = _parse_name(filename, stat.size)
            if shard is not None and filename not in self.damaged:
                found.append(shard)
        return sorted(found)

    def write(self, columns: dict[str, pa.Array], name: tuple[int, str, int]) -> Shard:
        """Write one shard under (time, writer, sequence); durable on return."""
        data = encode_table(columns, rows_per_group=ROWS_PER_GROUP)
        created_ms, writer, sequence = name
        num_rows = len(next(iter(columns.values())))
        digest = hashlib.sha256(data).hexdigest()
        shard = Shard(created_ms, writer, sequence, num_rows, digest, len(data))
        crashpoint("before-shard")
        self._store.backend.create(self._key(shard.filename), data)
        crashpoint("after-shard")
        return shard

    def read(self, shard: Shard, columns: list[str] | None = None) -> pa.Table | None:
        """The rows of a shard, verified; None where it is damaged or was merged away meanwhile."""
        return self.read_rows(shard, None, columns)

    def read_rows(
        self, shard: Shard, rows: Iterable[int] | None, columns: list[str] | None = None
    ) -> pa.Table | None:
        """Some rows of a shard (all for None), ascending; only their row groups are decoded."""
        key = self._key(shard.filename)
        ref = ObjectRef(sha256=shard.sha256, size=shard.size)
        try:
            path = self._store.local_copy(key, ref)
            return open_table(path, key, columns=columns, rows=rows)
        except CorruptionError:
            self.damaged.add(shard.filename)
            return None
        except MissingError:
            return None

    def read_all(
        self, shards: list[Shard], columns: list[str] | None = None
    ) -> list[pa.Table | None]:
        """`read` of several shards, in parallel."""
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            return list(pool.map(lambda shard: self.read(shard, columns), shards))

    def remove(self, shard: Shard) -> None:
        """Delete a shard whose rows stand elsewhere."""
        self._store.backend.delete(self._key(shard.filename))

    def quarantine(self, filename: str) -> bool:
        """Move a damaged shard out of the readers' sight; its bytes stay. False: it is whole."""
        backend = self._store.backend
        data = backend.read(self._key(filename)).data
        self.damaged.discard(filename)
        if hashlib.sha256(data).hexdigest() in filename:
            return False
        backend.create(f"{self._prefix}-damaged/{filename}", data)
        backend.delete(self._key(filename))
        return True

    def _key(self, filename: str) -> str:
        return f"{self._prefix}/{filename}"


class ShardWriter:
    """Names for one writer's shards: no two writers, and no two shards of one, share a name."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex[:12]
        self._sequence = 0
        self._lock = threading.Lock()

    def next_name(self) -> tuple[int, str, int]:
        """(time in ms, writer, sequence)."""
        with self._lock:
            self._sequence += 1
            return int(time.time() * 1000), self.id, self._sequence


ROWS_PER_GROUP = 512
"""Rows decoded together: small, so that one row is found without decoding all the others."""


def _parse_name(filename: str, size: int) -> Shard | None:
    match = _NAME.match(filename)
    if match is None:
        return None
    created_ms, writer, sequence, num_rows, sha256 = match.groups()
    return Shard(int(created_ms), writer, int(sequence), int(num_rows), sha256, size)
