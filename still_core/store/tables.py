"""Rows to Parquet and back. Equal rows give equal bytes: columns are sorted, nothing is stamped."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from still_core.errors import CorruptionError, DataError, MissingError, explain
from still_core.store.backend import system_failure

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLE_FILE = "data.parquet"


def table_bytes(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> bytes:
    """Parquet bytes of `rows`; a key that a row lacks is null.

    Raises:
        DataError: a column whose values have no common type.
    """
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        columns: dict[str, Any] = {str(name): rows[name] for name in rows.columns}
    else:
        kept = list(rows)
        names = {str(name) for row in kept for name in row}
        columns = {name: [row.get(name) for row in kept] for name in names}
    return encode_table({name: _array(name, columns[name]) for name in sorted(columns)})


def encode_table(columns: dict[str, pa.Array], *, rows_per_group: int = 65536) -> bytes:
    """Parquet bytes of typed columns, zstd, with a checksum on each page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        version="2.6",
        write_page_checksum=True,
        store_schema=False,
        row_group_size=rows_per_group,
    )
    written: bytes = sink.getvalue().to_pybytes()
    return written


def decode_table(data: bytes, key: str, columns: list[str] | None = None) -> pa.Table:
    """The Arrow table in Parquet bytes.

    Raises:
        CorruptionError: not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # In this thread alone: one of Arrow's own that holds the bytes wants the interpreter's lock
        # to let go of them, and aborts the process where that happens at its very end.
        with pq.ParquetFile(
            pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True
        ) as file:
            return file.read(columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptionError(explain(f"{key} is not readable Parquet ({error})")) from error


def column_names(data: bytes, key: str) -> list[str]:
    """Columns of the table in Parquet bytes; nothing but its footer is decoded.

    Raises:
        CorruptionError: not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(pa.BufferReader(data)).names
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptionError(explain(f"{key} is not readable Parquet ({error})")) from error
    return names


def open_table(
    path: Path, key: str, *, columns: list[str] | None = None, rows: Iterable[int] | None = None
) -> pa.Table:
    """Some columns and rows (all for None, else ascending) of a Parquet file on disk.

    Columns that it does not have are left out.

    Raises:
        CorruptionError: not Parquet.
        MissingError: the file is gone.
        StoreError: the system does not let it be read now.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            if rows is None:
                return file.read(columns=columns, use_threads=False)
            return _read_some(file, sorted(rows), columns)
    except FileNotFoundError as error:
        raise MissingError(explain("not in the store", got=key)) from error
    except (pa.ArrowInvalid, OSError) as error:
        # Arrow tells broken Parquet by an OSError without a number, the system's refusal by one.
        if isinstance(error, OSError) and error.errno:
            raise system_failure("can not read", key, error) from error
        raise CorruptionError(explain(f"{key} is not readable Parquet ({error})")) from error


def _read_some(file: Any, rows: list[int], columns: list[str] | None) -> pa.Table:
    """Decode only the row groups that hold `rows`."""
    groups, places, first, decoded = [], [], 0, 0
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        wanted = [row - first for row in rows if first <= row < first + size]
        if wanted:
            groups.append(group)
            places += [decoded + row for row in wanted]
            decoded += size
        first += size
    table = file.read_row_groups(groups, columns=columns, use_threads=False)
    return table if len(places) == len(table) else table.take(_indices(places))


def _indices(places: list[int]) -> pa.Array:
    """Row numbers for `take`; `pa.array` would import pandas first, a second for 20 numbers."""
    import pyarrow as pa

    return pa.Array.from_buffers(
        pa.int64(), len(places), [None, pa.py_buffer(array("q", places).tobytes())]
    )


def _array(name: str, values: Any) -> pa.Array:
    import pandas as pd
    import pyarrow as pa

    try:
        if isinstance(values, pd.Series):
            array = pa.Array.from_pandas(values)
            return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(explain(f"column {name!r} can not be stored ({error})")) from error
