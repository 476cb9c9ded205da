"""Artefacts of several named tables: one Parquet file each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from still_core.store.handle import Handle
from still_core.store.store import Store
from still_core.store.tables import decode_table, table_bytes


def publish_tables(
    store: Store,
    name: str,
    version: str,
    tables: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    meta: Mapping[str, Any] | None = None,
) -> Handle:
    """Publish each table as `<table>.parquet`; equal rows give equal bytes."""
    files = {f"{table}.parquet": table_bytes(rows) for table, rows in tables.items()}
    return store.publish(name, version, files, meta=meta)


def read_rows_of(
    store: Store, handle: Handle, table: str, *, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """One table's rows as plain Python values; only some of its columns, where they are named.

    Raises:
        MissingError: the artefact has no such table.
    """
    file = f"{table}.parquet"
    rows: list[dict[str, Any]] = decode_table(
        store.read_bytes(handle, file), file, columns
    ).to_pylist()
    return rows
