"""Rollouts to a file that people read: JSONL, or Parquet for pandas."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from still_core.errors import ConfigError, DataError, explain
from still_core.rollout.bank_rows import rollout_schema, rows_of
from still_core.whole_file import whole_file

if TYPE_CHECKING:
    import pyarrow as pa


def write_rollouts(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables of `rollout_schema` to `path`, which appears whole or not at all.

    Returns:
        how many rollouts.

    Raises:
        ConfigError: the suffix is neither `.jsonl` nor `.parquet`, or `path` can not be written.
        DataError: there is no rollout.
    """
    writers: dict[str, Callable[[Path, Iterable[pa.Table]], int]] = {
        ".jsonl": _write_jsonl,
        ".parquet": _write_parquet,
    }
    write = writers.get(path.suffix)
    if write is None:
        raise ConfigError(
            explain("unknown export format", got=path.name, expected="*.jsonl or *.parquet")
        )
    with whole_file(path) as staged:
        count = write(staged, tables)
        if not count:
            raise DataError(
                explain(
                    f"no rollout matches, and {path} is left as it is",
                    remedy="see what there is with `still bank ls`",
                )
            )
    return count


def _write_jsonl(path: Path, tables: Iterable[pa.Table]) -> int:
    # The standard library takes 15 times as long for the log-probs.
    import orjson

    count = 0
    with path.open("wb") as file:
        for table in tables:
            rows = rows_of(table)
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
            count += len(table)
    return count


def _write_parquet(path: Path, tables: Iterable[pa.Table]) -> int:
    import pyarrow.parquet as pq

    schema, count = rollout_schema(), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for table in tables:
            file.write_table(table.select(schema.names))
            count += len(table)
    return count
