"""Stores across processes: forks, and clients that must not be shared."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from still_core.store import Store

pytestmark = pytest.mark.integration


def test_a_store_that_was_used_works_in_a_forked_child(s3_root: str, tmp_path: Path) -> None:
    store = Store(s3_root, cache=tmp_path)
    handle = store.publish("x", "1", {"f": b"hello"})
    child = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(0 if store.read_bytes(handle, "f") == b"hello" else 1)
    )
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert store.read_bytes(handle, "f") == b"hello"
