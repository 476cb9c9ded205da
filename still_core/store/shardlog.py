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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import total_ordering
from typing import TYPE_CHECKING

from still_core.errors import CorruptionError, MissingError, StoreError, explain
from still_core.store.crashpoint import crashpoint
from still_core.store.manifest import ObjectRef
from still_core.store.store import READS_OF_DAMAGED, Store
from still_core.store.tables import column_names, encode_table, open_table

if TYPE_CHECKING:
    import pyarrow as pa

CONCURRENT_CALLS = 16
CONCURRENT_READS = 4
"""Whole shards in memory at once."""
MIN_STRETCH = 4
"""Fewer shards of one writer are not worth a merge: it costs a put for the pack and one more for
its light columns."""
MAX_SEQUENCE = 999_999
"""The sequence number has six digits in a shard's name."""
_LIGHT_NAME = re.compile(r"/([0-9a-f]{64})-([0-9a-f]{64})\.parquet\Z")
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

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        columns: Collection[str],
        light: Sequence[str] = (),
        complete: Callable[[pa.Table], pa.Table] = lambda table: table,
    ) -> None:
        """Open the log.

        Args:
            store: where.
            prefix: key prefix of the shards.
            columns: what every shard has; one that lacks any is damaged.
            light: columns that a merged shard also keeps in a small file of their own, so that
                they are read without its bytes.
            complete: adds the columns that a whole row lacks in an old shard.
        """
        self._store, self._complete = store, complete
        self._prefix = prefix
        self._columns, self._light = frozenset(columns), list(light)
        self._light_files: dict[str, tuple[str, ObjectRef]] = {}
        self.damaged: set[str] = set()
        """File names of shards whose bytes do not fit their name, or are no such table."""

    def shards(self) -> list[Shard]:
        """All shards now, oldest first; other files and damaged shards are left out.

        A listing is no snapshot: one that a merge overtakes may pass the pack's place too early
        and the old shards' too late. The pack stands before the first of them goes, so a second
        look has it. Some of what is returned may be merged away by then.
        """
        return sorted({*self._listed(), *self._listed()})

    def _listed(self) -> Iterator[Shard]:
        for stat in self._store.backend.scan(f"{self._prefix}/"):
            filename = stat.key[len(self._prefix) + 1 :]
            shard = _parse_name(filename, stat.size)
            if shard is not None and filename not in self.damaged:
                yield shard

    def write(
        self, columns: dict[str, pa.Array], name: tuple[int, str, int], *, apart: bool = False
    ) -> Shard:
        """Write one shard under (time, writer, sequence); durable on return.

        Args:
            columns: typed, of equal length.
            name: of `ShardWriter.next_name`.
            apart: keep the light columns in a file of their own too.
        """
        data = encode_table(columns, rows_per_group=ROWS_PER_GROUP)
        created_ms, writer, sequence = name
        num_rows = len(next(iter(columns.values())))
        digest = hashlib.sha256(data).hexdigest()
        shard = Shard(created_ms, writer, sequence, num_rows, digest, len(data))
        if apart:
            self._write_light(shard, columns)
        crashpoint("before-shard")
        if not self._store.backend.create(self._key(shard.filename), data):
            # The name holds the digest: what stands there is a damaged transfer of ours.
            raise StoreError(
                explain(
                    "a shard of the bank was damaged on its way",
                    got=self._key(shard.filename),
                    remedy="nothing is lost: it is written again under another name",
                )
            )
        crashpoint("after-shard")
        return shard

    def read(self, shard: Shard, columns: list[str] | None = None) -> pa.Table | None:
        """The rows of a shard, verified; None where it is damaged or was merged away meanwhile."""
        return self.read_rows(shard, None, columns)

    def read_rows(
        self,
        shard: Shard,
        rows: Iterable[int] | None,
        columns: list[str] | None = None,
        *,
        verify_again: bool = False,
    ) -> pa.Table | None:
        """Some rows of a shard (all for None), ascending; only their row groups are decoded.

        The bytes are verified once per process, with `verify_again` also now.
        """
        ref = ObjectRef(sha256=shard.sha256, size=shard.size)
        try:
            key = self._key(shard.filename)
            table = self._open(key, ref, columns, rows, verify_again=verify_again)
            return table if columns else self._complete(table)
        except CorruptionError:
            self.damaged.add(shard.filename)
            return None
        except MissingError:
            return None

    def is_whole(self, shard: Shard) -> bool:
        """Whether the stored bytes are the shard's: read anew, past every cache."""
        for _ in range(READS_OF_DAMAGED):
            try:
                data = self._store.backend.read(self._key(shard.filename)).data
            except MissingError:
                return False
            except CorruptionError:  # after retries of its own
                break
            if self._fits(data, shard.filename):
                return True
        self.damaged.add(shard.filename)
        return False

    def find_damaged(self) -> None:
        """Read every shard anew and note in `damaged` those that are."""
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            list(pool.map(self.is_whole, self.shards()))

    def read_light(self, shards: list[Shard]) -> list[pa.Table | None]:
        """The light columns of several shards, in parallel."""
        if not shards:
            return []
        self._find_light()
        with ThreadPoolExecutor(CONCURRENT_CALLS) as pool:
            return list(pool.map(self._read_light, shards))

    def merge(
        self,
        run: list[Shard],
        kept: list[list[int]],
        writer: ShardWriter,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> bool:
        """Write rows of several shards as one, then drop them: a crash between leaves duplicates.

        Args:
            run: neighbours in age; the merged shard takes the place of the first.
            kept: for each, the numbers of the rows that stay, ascending.
            writer: who merges.
            check: raises where the right to merge was lost.

        Returns:
            False where a shard vanished or is damaged, and nothing was done.
        """
        pairs = [(shard, rows) for shard, rows in zip(run, kept, strict=True) if rows]
        # The originals go: what rotted since it was read must not go into the pack unseen.
        tables = [self.read_rows(shard, rows, verify_again=True) for shard, rows in pairs]
        whole = [table for table in tables if table is not None]
        if len(whole) != len(tables):
            return False
        self._replace(run, whole, writer, check)
        return True

    def merge_own(
        self,
        run: list[Shard],
        tables: list[pa.Table],
        writer: ShardWriter,
        *,
        choose: Callable[[list[pa.Table]], list[pa.Table]],
    ) -> None:
        """As `merge`, with shards whose rows their writer still has: nothing is read back.

        What is no neighbour in age, because another writer's shards stand between or somebody
        merged one meanwhile, is not merged: the oldest row of an id stays so. Nor are a few.

        Args:
            run: in order of age.
            tables: all rows of each.
            writer: who wrote them.
            choose: the rows that stay, of tables that are merged together.
        """
        for stretch in self._stretches(run):
            if len(stretch) >= MIN_STRETCH:
                rows = choose([tables[number] for number in stretch])
                self._replace([run[number] for number in stretch], rows, writer, lambda: None)

    def _stretches(self, run: list[Shard]) -> list[list[int]]:
        """Numbers of those shards of `run` that stand, neighbours together."""
        place = {shard: number for number, shard in enumerate(self.shards())}
        stretches: list[list[int]] = []
        for number, shard in enumerate(run):
            if shard in place:
                before = stretches[-1][-1] if stretches else None
                if before is not None and place[shard] == place[run[before]] + 1:
                    stretches[-1].append(number)
                else:
                    stretches.append([number])
        return stretches

    def _replace(
        self,
        run: list[Shard],
        tables: list[pa.Table],
        writer: ShardWriter,
        check: Callable[[], None],
    ) -> None:
        """Write `tables` as one shard in the place of `run`, whose shards are then dropped."""
        import pyarrow as pa

        crashpoint("before-pack")
        check()
        if any(table.num_rows for table in tables):
            table = pa.concat_tables(tables).combine_chunks()
            columns = {name: table[name].combine_chunks() for name in table.column_names}
            _, name, sequence = writer.next_name()
            self.write(columns, (run[0].created_ms, name, sequence), apart=bool(self._light))
        crashpoint("after-pack")
        check()
        with ThreadPoolExecutor(CONCURRENT_CALLS) as pool:
            for _ in pool.map(self.remove, run):
                crashpoint("mid-compaction")

    def remove(self, shard: Shard) -> None:
        """Delete a shard whose rows stand elsewhere."""
        self._store.backend.delete(self._key(shard.filename))
        apart = self._light_files.pop(shard.sha256, None)
        if apart is not None:
            self._store.backend.delete(apart[0])

    def quarantine(self, filename: str) -> bool:
        """Move a damaged shard out of the readers' sight; its bytes stay. False: it is whole."""
        backend = self._store.backend
        self.damaged.discard(filename)
        try:
            data = self._store.bytes_as_stored(self._key(filename))
        except MissingError:
            return False
        if self._fits(data, filename):
            return False
        backend.create(f"{self._prefix}-damaged/{filename}", data)
        backend.delete(self._key(filename))
        return True

    def sweep_light(self, *, older_than_s: float, dry_run: bool) -> list[str]:
        """Name, and unless `dry_run` remove, light files whose shard is gone.

        Args:
            older_than_s: younger ones stay: their shard may be on its way.
            dry_run: only name.
        """
        backend = self._store.backend
        stats = list(backend.scan(f"{self._prefix}-light/"))
        shards = {shard.sha256 for shard in self.shards()}
        # A dry run writes nothing, so it asks no clock but this machine's.
        now = time.time() if dry_run or not stats else backend.now()
        orphans = [
            stat.key
            for stat in stats
            if (match := _LIGHT_NAME.search(stat.key)) is not None
            and match.group(1) not in shards
            and now - stat.modified >= older_than_s
        ]
        for key in [] if dry_run else orphans:
            backend.delete(key)
        return orphans

    def _open(
        self,
        key: str,
        ref: ObjectRef,
        columns: list[str] | None,
        rows: Iterable[int] | None,
        *,
        verify_again: bool = False,
    ) -> pa.Table:
        """A verified table; a copy that rotted since it was verified is verified again."""
        chosen = None if rows is None else list(rows)
        try:
            path = self._store.local_copy(key, ref, verify_again=verify_again)
            table = open_table(path, key, columns=columns, rows=chosen)
        except CorruptionError:
            path = self._store.local_copy(key, ref, verify_again=True)
            table = open_table(path, key, columns=columns, rows=chosen)
        lacking = set(columns or self._columns).difference(table.column_names)
        if lacking:
            raise CorruptionError(explain(f"{key} lacks columns", got=sorted(lacking)))
        return table

    def _fits(self, data: bytes, filename: str) -> bool:
        """Whether the bytes are those that the name tells, and a table with the log's columns."""
        if hashlib.sha256(data).hexdigest() not in filename:
            return False
        try:
            return self._columns.issubset(column_names(data, filename))
        except CorruptionError:
            return False

    def _key(self, filename: str) -> str:
        return f"{self._prefix}/{filename}"

    def _write_light(self, shard: Shard, columns: dict[str, pa.Array]) -> None:
        """Before the shard, so that whoever sees the shard finds it."""
        data = encode_table({name: columns[name] for name in self._light})
        digest = hashlib.sha256(data).hexdigest()
        self._store.backend.create(f"{self._prefix}-light/{shard.sha256}-{digest}.parquet", data)

    def _find_light(self) -> None:
        for stat in self._store.backend.scan(f"{self._prefix}-light/") if self._light else ():
            match = _LIGHT_NAME.search(stat.key)
            if match is not None:
                ref = ObjectRef(sha256=match.group(2), size=stat.size)
                self._light_files[match.group(1)] = (stat.key, ref)

    def _read_light(self, shard: Shard) -> pa.Table | None:
        key, ref = self._light_files.get(shard.sha256, ("", None))
        if ref is not None:
            try:
                return self._open(key, ref, self._light, None)
            except (CorruptionError, MissingError):
                # The shard itself holds the same columns.
                del self._light_files[shard.sha256]
        return self.read(shard, self._light or None)


class ShardWriter:
    """Names for one writer's shards: no two writers, and no two shards of one, share a name."""

    def __init__(self) -> None:
        self._id, self._sequence = _new_id(), 0
        self._lock = threading.Lock()

    def next_name(self, *, after_ms: int = 0) -> tuple[int, str, int]:
        """(time in ms, writer, sequence); the time is later than `after_ms`, whatever the clock."""
        with self._lock:
            if self._sequence == MAX_SEQUENCE:
                self._id, self._sequence = _new_id(), 0
            self._sequence += 1
            return max(int(time.time() * 1000), after_ms + 1), self._id, self._sequence


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


ROWS_PER_GROUP = 512
"""Rows decoded together: small, so that one row is found without decoding all the others."""


def _parse_name(filename: str, size: int) -> Shard | None:
    match = _NAME.match(filename)
    if match is None:
        return None
    created_ms, writer, sequence, num_rows, sha256 = match.groups()
    return Shard(int(created_ms), writer, int(sequence), int(num_rows), sha256, size)
