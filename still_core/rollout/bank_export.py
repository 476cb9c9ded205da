"""Rollouts to a file that people read: JSONL, or Parquet for pandas."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from still_core.errors import ConfigError, explain
from still_core.rollout.bank_rows import rollout_columns, rollout_row, rollout_schema
from still_core.rollout.rollout import Rollout

ROWS_PER_BATCH = 512


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Write `rollouts` to `path`, which appears whole or not at all; returns how many.

    Raises:
        ConfigError: the suffix is neither `.jsonl` nor `.parquet`.
    """
    writers: dict[str, Callable[[Path, Iterable[Rollout]], int]] = {
        ".jsonl": _write_jsonl,
        ".parquet": _write_parquet,
    }
    write = writers.get(path.suffix)
    if write is None:
        raise ConfigError(
            explain("unknown export format", got=path.name, expected="*.jsonl or *.parquet")
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        count = write(staged, rollouts)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return count


def _write_jsonl(path: Path, rollouts: Iterable[Rollout]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for rollout in rollouts:
            file.write(json.dumps(rollout_row(rollout), ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rollouts: Iterable[Rollout]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count = rollout_schema(), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for batch in _batches(rollouts):
            columns = rollout_columns(batch)
            file.write_table(pa.table(columns, schema=schema))
            count += len(batch)
    return count


def _batches(rollouts: Iterable[Rollout]) -> Iterator[list[Rollout]]:
    source = iter(rollouts)
    while batch := list(islice(source, ROWS_PER_BATCH)):
        yield batch
