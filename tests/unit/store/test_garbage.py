"""Garbage collection, retention and lineage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.cli.store import LEAST_AGE_HOURS
from still_core.errors import ConfigError
from still_core.store import Store
from still_core.store.backend import Stat
from still_core.store.garbage import REUSED_FOR_S
from still_core.store.lineage import ancestors, descendants
from still_core.store.manifest import Manifest
from still_core.store.retention import checkpoints_to_keep


@pytest.fixture
def store(store_root: str, tmp_path: Path) -> Store:
    """An empty store with its own cache."""
    return Store(store_root, cache=tmp_path / "cache")


def test_a_dry_run_names_and_removes_nothing(store: Store) -> None:
    keep = store.publish("a", "1", {"f": b"shared", "g": b"own"})
    drop = store.publish("b", "1", {"f": b"shared", "h": b"lonely"})
    lonely = store.manifest(drop).objects["h"]
    report = store.gc(keep=[keep], min_age_s=0)
    assert report.manifests == ("manifests/b/1.json",)
    assert report.objects == (lonely.key,)
    assert report.num_bytes == 6
    assert report.lines() == ["would remove manifests/b/1.json", f"would remove {lonely.key}"]
    assert store.exists(drop)


def test_a_collection_removes_what_it_named_and_keeps_shared_files(store: Store) -> None:
    keep = store.publish("a", "1", {"f": b"shared", "g": b"own"})
    drop = store.publish("b", "1", {"f": b"shared", "h": b"lonely"})
    assert store.gc(keep=[keep], min_age_s=0, dry_run=False).removed
    assert store.exists(keep)
    assert store.find("b", "1") is None
    assert not store.exists(drop)
    again = store.gc(keep=[keep], min_age_s=0)
    assert (again.manifests, again.objects) == ((), ())


def test_what_a_pointer_leads_to_stays(store: Store) -> None:
    handle = store.publish("a", "1", {"f": b"x"})
    store.swap_pointer("LATEST", handle, expected=None)
    assert store.gc(keep=[], min_age_s=0, dry_run=False).manifests == ()
    assert store.exists(handle)


def test_young_files_without_a_manifest_are_spared(store: Store) -> None:
    store.backend.put("objects/" + "0" * 64, b"a writer is at work")
    report = store.gc(keep=[], dry_run=False)
    assert (report.objects, report.too_young) == ((), 1)


def test_an_old_file_that_a_resumed_run_writes_anew_during_the_sweep_is_spared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "objects/" + "0" * 64
    store.backend.put(key, b"of a run that crashed")
    time.sleep(3.1)
    scan = store.backend.scan

    def listed_and_resumed(prefix: str) -> Iterator[Stat]:
        found = list(scan(prefix))
        if prefix == "objects/":
            store.backend.put(key, b"of a run that crashed")
        return iter(found)

    monkeypatch.setattr(store.backend, "scan", listed_and_resumed)
    report = store.gc(keep=[], min_age_s=2, dry_run=False)
    assert (report.objects, report.too_young) == ((), 1)
    assert store.backend.stat(key) is not None


def test_a_collection_removes_a_file_right_after_it_looked_at_its_age(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.backend.put("objects/" + "0" * 64, b"of a run that crashed")
    time.sleep(3.1)
    asked: list[str] = []
    for name in ("stat", "now", "scan", "read", "delete"):
        call = getattr(store.backend, name)

        def noted(*arguments: Any, name: str = name, call: Any = call) -> Any:
            asked.append(name)
            return call(*arguments)

        monkeypatch.setattr(store.backend, name, noted)
    assert store.gc(keep=[], min_age_s=2, dry_run=False).objects
    assert asked[asked.index("delete") - 1] == "stat"


def test_a_collection_takes_the_unpacked_folder_of_what_is_gone(store: Store) -> None:
    keep, drop = (store.publish(name, "1", {"f": name.encode()}) for name in ("a", "b"))
    stays, goes = store.fetch(keep), store.fetch(drop)
    store.gc(keep=[keep], min_age_s=0, dry_run=False)
    assert stays.is_dir()
    assert not goes.exists()


def test_staged_files_of_dead_writers_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.publish("a", "1", {"f": b"x"})
    (tmp_path / "s" / ".staging" / "999-dead").write_bytes(b"half")
    report = store.gc(keep=store.list(), min_age_s=0, dry_run=False)
    assert report.unfinished == (".staging/999-dead",)
    assert not (tmp_path / "s" / ".staging" / "999-dead").exists()


def checkpoint(step: int, score: object) -> Manifest:
    return Manifest(name="m", version=str(step), objects={}, meta={"step": step, "score": score})


def test_the_best_and_the_newest_checkpoints_are_kept() -> None:
    scores = {100: 0.5, 200: 0.9, 300: 0.7, 400: None, 500: float("nan"), 600: 0.9, 700: True}
    kept = checkpoints_to_keep(
        [checkpoint(step, score) for step, score in scores.items()], best=2, newest=1
    )
    # 0.9 twice; of equal scores the later would go first, and 700 is the newest.
    assert [m.version for m in kept] == ["200", "600", "700"]
    alone = checkpoints_to_keep([checkpoint(s, v) for s, v in scores.items()], best=1, newest=1)
    assert [m.version for m in alone] == ["600", "700"]
    with pytest.raises(ConfigError, match="retention"):
        checkpoints_to_keep([], best=1, newest=0)


def test_lineage_runs_both_ways(store: Store) -> None:
    data = store.publish("data", "1", {"f": b"rows"})
    model = store.publish("model", "1", {"f": b"weights"}, meta={"parents": [data.digest]})
    report = store.publish("report", "1", {"f": b"page"}, meta={"parents": [model.digest]})
    assert [m.name for m in descendants(store, data)] == ["model", "report"]
    assert [m.name for m in ancestors(store, report)] == ["model", "data"]
    assert ancestors(store, data) == []


def test_the_least_age_of_a_collection_leaves_a_writer_an_hour_to_publish() -> None:
    assert LEAST_AGE_HOURS * 3600 >= REUSED_FOR_S + 3600
