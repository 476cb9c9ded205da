"""Damaged and malicious content of a store: refused with the reason, nothing left outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from still_core.errors import CorruptionError, DataError, StillError, StoreError
from still_core.store import Handle, Store
from still_core.store.document import seal
from still_core.store.manifest import ObjectRef, content_digest, manifest_key
from tests.fixtures.damage_campaign import folder_stores, read_trusting, run_damage


def test_two_hundred_kinds_of_damage_are_refused_with_the_reason(tmp_path: Path) -> None:
    campaign = run_damage(folder_stores(tmp_path), range(200))
    assert campaign.failures == []
    assert campaign.passed == 200
    assert len(campaign.kinds) == 16


@pytest.mark.integration
def test_damage_on_s3_is_refused_with_the_reason(s3_root: str, tmp_path: Path) -> None:
    campaign = run_damage(
        lambda seed: Store(f"{s3_root}/{seed}", cache=tmp_path / str(seed)), range(16)
    )
    assert campaign.failures == []


def test_a_reader_that_trusts_names_is_caught(tmp_path: Path) -> None:
    campaign = run_damage(folder_stores(tmp_path), range(16), read=read_trusting)
    accepted = [failure for failure in campaign.failures if failure.endswith("accepted")]
    assert len(accepted) == 5


HOSTILE_PATHS = [
    "../canary",
    "../../canary",
    "a/../../canary",
    "/tmp/canary",
    "//canary",
    "./canary",
    "a/./canary",
    "a//canary",
    "..",
    ".",
    "",
    "a/..",
    "..\\canary",
    "C:\\canary",
    "canary\0.txt",
    "canary\n",
    "x" * 600,
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_forged_manifest_with_a_climbing_path_writes_nothing(tmp_path: Path, path: str) -> None:
    store = Store(tmp_path / "deep" / "store")
    honest = store.publish("x", "1", {"f": b"payload"})
    ref = store.manifest(honest).objects["f"]
    handle = forge(store, {path: ref})
    with pytest.raises(CorruptionError, match="unsafe file path"):
        store.fetch(handle)
    assert not list(tmp_path.rglob("*canary*"))


def test_a_forged_manifest_with_a_path_that_is_file_and_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ref = store.manifest(store.publish("x", "1", {"f": b"p"})).objects["f"]
    with pytest.raises(CorruptionError, match="both file and folder"):
        store.fetch(forge(store, {"a": ref, "a/b": ref}))


def test_a_manifest_nested_too_deep_is_damaged_and_can_be_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    nested = b'{"sha256": "0", "meta": ' + b'{"a":' * 900 + b"1" + b"}" * 901
    store.backend.put("manifests/x/1.json", nested)
    with pytest.raises(CorruptionError, match="quarantine"):
        store.manifests()
    assert store.quarantine("manifests/x/1.json")
    assert store.manifests() == []


def test_a_pointer_that_lacks_its_fields_is_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.backend.put("pointers/LATEST.json", seal({"version": "1"}))
    with pytest.raises(CorruptionError, match=r"pointers/LATEST\.json is no pointer"):
        store.pointer("LATEST")


def test_a_stray_file_among_the_pointers_does_not_stop_a_collection(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = store.publish("x", "1", {"f": b"hello"})
    store.backend.put("pointers/.DS_Store", b"\0")
    store.gc(keep=[handle], min_age_s=0, dry_run=False)
    assert store.exists(handle)


def test_a_pipe_in_the_place_of_an_object_stops_no_fetch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = store.publish("x", "1", {"f": b"hello"})
    ref = store.manifest(handle).objects["f"]
    (tmp_path / ref.key).unlink()
    os.mkfifo(tmp_path / ref.key)
    with pytest.raises(CorruptionError, match="no regular file"):
        store.fetch(handle)
    with pytest.raises(CorruptionError, match="no regular file"):
        store.local_copy(ref.key, ref)


def test_a_symbolic_link_in_the_place_of_an_object_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"hello")
    store = Store(tmp_path / "s")
    handle = store.publish("x", "1", {"f": b"hello"})
    place = tmp_path / "s" / store.manifest(handle).objects["f"].key
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(StoreError):
        store.read_bytes(handle, "f")
    with pytest.raises(StoreError, match="symbolic link"):
        store.fetch(handle)
    assert not store.exists(handle)


def test_a_pipe_in_the_place_of_an_object_does_not_hang_the_reader(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    handle = store.publish("x", "1", {"f": b"hello"})
    place = tmp_path / "s" / store.manifest(handle).objects["f"].key
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(StoreError, match="not a regular file"):
        store.read_bytes(handle, "f")


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_a_folder_with_links_or_pipes_is_not_published(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("CANARY")
    odd = source / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        target = {"link to a file": "secret/key", "link to a folder": "secret"}.get(kind, "nowhere")
        odd.symlink_to(tmp_path / target)
    with pytest.raises(DataError, match="only regular files"):
        Store(tmp_path / "s").publish_dir("m", "1", source)


def test_a_link_is_not_published_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("CANARY")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(DataError, match="only regular files"):
        Store(tmp_path / "s").publish("x", "1", {"f": tmp_path / "link"})


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "a/../b", "x.json/y"])
def test_a_handle_with_a_climbing_name_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(StillError, match="unusable name"):
        store.manifest(Handle(name=name, version="1", uri="", digest="0" * 64))
    with pytest.raises(StillError):
        store.pointer(name)
    with pytest.raises(StillError):
        store.lease(name, ttl_s=1, owner="o")


def test_a_damaged_cached_file_is_fetched_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    handle = store.publish("x", "1", {"f": b"hello"})
    folder = store.fetch(handle)
    folder.chmod(0o755)
    (folder / "f").unlink()
    (folder / "f").write_bytes(b"jello")
    fresh = Store(tmp_path / "s")
    assert (fresh.fetch(handle) / "f").read_bytes() == b"hello"


def forge(store: Store, objects: dict[str, ObjectRef]) -> Handle:
    """A manifest by somebody who knows the format."""
    digest = content_digest(objects)
    body = {
        "format": 1,
        "name": "forged",
        "version": "1",
        "digest": digest,
        "objects": {path: {"sha256": r.sha256, "size": r.size} for path, r in objects.items()},
        "meta": {},
    }
    store.backend.put(manifest_key("forged", "1"), seal(body))
    return Handle(name="forged", version="1", uri="", digest=digest)
