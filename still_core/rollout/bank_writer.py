"""The appending side of the bank: a buffer, and a thread that makes it durable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from still_core.closing import Closing
from still_core.errors import StoreError, explain
from still_core.rollout.bank_rows import check_storable, rollout_columns, storable
from still_core.rollout.rollout import Rollout
from still_core.store.shardlog import Shard, ShardLog, ShardWriter

if TYPE_CHECKING:
    import pyarrow as pa

FLUSH_S = 2.0
AT_STAKE = 0.01
"""Share of the time since a writer's first row that a row waits at most, so that a crash costs no
more of its work."""
EARLIEST = 0.01
"""Share of `flush_s` that a row may always wait: a young writer does not write row by row."""
MAX_BUFFERED_ROWS = 4096
MAX_BUFFERED_TOKENS = 4 * 2**20
MERGE_FROM = 16
"""Shards of one writer that are worth merging: each one costs every later reader a request."""
MAX_HELD = 64 * 2**20
"""Bytes of rows that a writer keeps, to merge their shards without reading them again; when there
are more, it merges what it has so far. Those of few large shards are left to `RolloutBank.gc`."""
_LOG = logging.getLogger(__name__)


class BankWriter(Closing):
    """Appends rollouts; a thread makes them durable within `flush_s`."""

    def __init__(
        self, holds: Callable[[Rollout], bool], shards: ShardLog, *, owner: str, flush_s: float
    ) -> None:
        self._holds, self._shards = holds, shards
        self.owner = owner
        self._flush_s = flush_s
        self._first_at: float | None = None
        self._names = ShardWriter()
        self._buffer: dict[str, Rollout] = {}
        """By id: one that comes again with its verdict takes the place of the one without."""
        self._buffered_tokens = 0
        self._oldest_at = 0.0
        self._seen: dict[str, bool] = {}
        self._failure: StoreError | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._flushing = threading.Lock()
        self._written: list[tuple[Shard, pa.Table]] = []
        """Shards that are not merged yet, with their rows."""
        self._held_bytes = 0
        self._merger = ThreadPoolExecutor(1, thread_name_prefix=f"merges {owner}")
        """Beside the thread that flushes: no row waits for a merge."""
        self._merging: Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"bank {owner}", daemon=True)
        self._thread.start()

    def append(self, rollout: Rollout) -> None:
        """Take one rollout; nothing happens where its id is already there, judged as well.

        Raises:
            DataError: no shard can hold it; the line names the field.
            StoreError: an earlier flush failed for good; nothing was dropped, this rollout is
                taken too, and `flush` tries again.
        """
        check_storable(rollout)
        row = storable(rollout)
        judged = bool(row.outcome)
        with self._changed:
            if self._closed:
                raise StoreError(explain("the bank's writer is closed", got=self.owner))
            if self._seen.get(rollout.id) not in (True, judged) and not self._holds(rollout):
                self._seen[rollout.id] = judged
                now = time.monotonic()
                if self._first_at is None:
                    self._first_at = now
                if not self._buffer:
                    self._oldest_at = now
                if rollout.id not in self._buffer:
                    self._buffered_tokens += len(row.token_ids)
                self._buffer[rollout.id] = row
                self._changed.notify()
            if self._failure is not None:
                raise self._failure

    def flush(self) -> None:
        """Make everything appended so far durable before returning.

        Raises:
            StoreError: the store refused for good; the rollouts stay buffered.
        """
        import pyarrow as pa

        with self._flushing:
            with self._changed:
                batch, self._buffer = self._buffer, {}
                self._buffered_tokens = 0
            if not batch:
                return
            try:
                columns = rollout_columns(list(batch.values()))
                shard = self._shards.write(columns, self._names.next_name())
            except BaseException:
                with self._changed:
                    self._buffer = batch | self._buffer
                    self._buffered_tokens = sum(len(r.token_ids) for r in self._buffer.values())
                raise
            self._failure = None
            rows = pa.table(columns)
            self._written.append((shard, rows))
            self._held_bytes += rows.nbytes
            if self._held_bytes > MAX_HELD and not self._closed:
                self._merge_aside()

    def close(self) -> None:
        """Flush, merge and end; calling it again does nothing.

        Raises:
            StoreError: the store refused for good what was not durable yet.
        """
        if self._stop():
            self.flush()
            self._merger.shutdown()
            self._merge(self._written)
            self._written.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an error in the block, save what can be saved and let that error go on.

        Then no merge is started: that is for a campaign that has time.
        """
        if error is None:
            self.close()
        elif self._stop():
            try:
                self.flush()
            except Exception as refusal:  # what ended the block is the cause, and told
                lost = len(self._buffer)
                _LOG.error("bank: %d finished rollouts could not be saved (%s)", lost, refusal)
            self._merger.shutdown(wait=False)

    def _stop(self) -> bool:
        """End the thread that flushes; False where it has ended before."""
        with self._changed:
            already, self._closed = self._closed, True
            self._changed.notify()
        if already:
            return False
        self._thread.join()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_due():
                    self._changed.wait(self._patience())
                if self._closed:
                    return
            try:
                self.flush()
            except Exception as error:
                # Told to the next `append`; the retries of the back end are already spent.
                self._failure = StoreError(explain(f"can not bank rollouts ({error})"))
                time.sleep(self._flush_s)

    def _merge_aside(self) -> None:
        """Merge what is held in a thread of its own, one at a time, and hold it no longer.

        Where the merge before is not done yet, the shards are left to `RolloutBank.gc`: the store
        is slower than the engines, and memory must not fill up.
        """
        written, self._written, self._held_bytes = self._written, [], 0
        if self._merging is None or self._merging.done():
            self._merging = self._merger.submit(self._merge, written)

    def _merge(self, written: Sequence[tuple[Shard, pa.Table]]) -> None:
        """Leave one shard in the place of many."""
        if len(written) < MERGE_FROM:
            return
        try:
            self._shards.merge_own(
                [shard for shard, _ in written],
                [rows for _, rows in written],
                self._names,
                choose=_without_superseded,
            )
        except Exception as error:
            # Every row is durable, so this is no failure of the campaign.
            _LOG.warning("bank: small shards stay as they are, merge them by gc (%s)", error)

    def _is_due(self) -> bool:
        if not self._buffer:
            return False
        full = len(self._buffer) >= MAX_BUFFERED_ROWS
        return full or self._buffered_tokens >= MAX_BUFFERED_TOKENS or self._patience() <= 0

    def _patience(self) -> float:
        """Seconds until the oldest buffered row must go; half of `flush_s` is left for the put."""
        if not self._buffer or self._first_at is None:
            return 3600.0
        now = time.monotonic()
        wait = max(EARLIEST * self._flush_s, AT_STAKE * (now - self._first_at))
        return self._oldest_at + min(wait, self._flush_s / 2) - now


def _without_superseded(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The rows but for those without a verdict that stand here once more with it."""
    rows = [
        list(zip(table["id"].to_pylist(), table["outcome"].to_pylist(), strict=True))
        for table in tables
    ]
    judged = {name for some in rows for name, outcome in some if outcome}
    return [
        table.filter([bool(outcome) or name not in judged for name, outcome in some])
        for table, some in zip(tables, rows, strict=True)
    ]
