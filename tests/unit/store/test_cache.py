"""The read cache: processes that start together fetch once."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from pathlib import Path

from still_core.store.cache import ReadCache
from still_core.store.manifest import ObjectRef

DATA = b"weights"
REF = ObjectRef(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def fetch_slowly(root: Path, log: Path) -> None:
    """Fetch the object and then the folder that holds it, and note each download."""

    def download(path: Path) -> None:
        with log.open("a") as file:
            file.write("object\n")
        time.sleep(0.3)
        path.write_bytes(DATA)

    def link(ref: ObjectRef, path: Path) -> None:
        with log.open("a") as file:
            file.write("folder\n")
        time.sleep(0.3)
        path.hardlink_to(cache.path(ref))

    cache = ReadCache(root, limit_bytes=2**20)
    cache.put(REF, download)
    cache.tree("digest", {"model": REF}, link)


def test_processes_of_one_machine_fetch_an_artefact_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [
        spawn.Process(target=fetch_slowly, args=(tmp_path / "cache", log)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text().splitlines() == ["object", "folder"]
    assert (tmp_path / "cache" / "trees" / "digest" / "model").read_bytes() == DATA
