"""The store's promises, on a folder and on a real S3 server."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
from pathlib import Path

import pandas as pd
import pytest

from still_core.errors import (
    ConfigError,
    ConflictError,
    CorruptionError,
    DataError,
    MissingError,
    StoreError,
)
from still_core.store import Handle, Store
from still_core.store import store as store_module
from still_core.store.backend import Tagged


@pytest.fixture
def store(store_root: str, tmp_path: Path) -> Store:
    """An empty store with its own cache."""
    return Store(store_root, cache=tmp_path / "cache")


def test_published_files_come_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    on_disk = tmp_path / "weights.bin"
    on_disk.write_bytes(os.urandom(100_000))
    handle = store.publish("models/m0", "1", {"a/w.bin": on_disk, "note.txt": b"hello"})
    assert store.read_bytes(handle, "a/w.bin") == on_disk.read_bytes()
    assert store.read_bytes(handle, "note.txt") == b"hello"
    assert store.find("models/m0", "1") == handle
    manifest = store.manifest(handle)
    assert manifest.objects["note.txt"].sha256 == hashlib.sha256(b"hello").hexdigest()
    assert manifest.objects["note.txt"].size == 5
    assert manifest.created_at is not None


def test_an_unknown_version_is_none_and_its_handle_does_not_exist(store: Store) -> None:
    assert store.find("nothing", "1") is None
    ghost = Handle(name="nothing", version="1", uri="", digest="0" * 64)
    assert not store.exists(ghost)
    with pytest.raises(MissingError, match="nothing@1"):
        store.manifest(ghost)


def test_publishing_equal_content_again_returns_the_same_handle(store: Store) -> None:
    first = store.publish("x", "1", {"f": b"same"}, meta={"k": 1})
    assert store.publish("x", "1", {"f": b"same"}, meta={"k": 2}, first_wins=False) == first
    assert store.manifest(first).meta == {"k": 1}


def test_the_first_content_of_a_version_stays(store: Store) -> None:
    first = store.publish("x", "1", {"f": b"one"})
    assert store.publish("x", "1", {"f": b"two"}) == first
    with pytest.raises(ConflictError, match="x@1 is published with other content"):
        store.publish("x", "1", {"f": b"two"}, first_wins=False)
    assert store.read_bytes(first, "f") == b"one"


def test_the_digest_names_the_content_and_not_the_version(store: Store) -> None:
    one = store.publish("x", "1", {"f": b"same"}, meta={"seconds": 1.5})
    two = store.publish("y", "2", {"f": b"same"})
    assert one.digest == two.digest
    assert store.publish("x", "3", {"g": b"same"}).digest != one.digest


def test_tables_come_back_as_plain_rows(store: Store) -> None:
    rows = [
        {"id": "a", "n": 1, "x": 0.5, "tokens": [1, 2], "none": None, "flag": True},
        {"id": "b", "n": 2, "x": None, "tokens": [], "none": None, "flag": False},
    ]
    handle = store.publish_table("t", "1", rows)
    assert store.read_rows(handle) == rows


def test_equal_rows_give_equal_bytes_whatever_the_order_of_keys(store: Store) -> None:
    left = store.publish_table("t", "1", [{"a": 1, "b": "x"}, {"a": 2}])
    right = store.publish_table("t", "2", ({"b": b, "a": a} for a, b in [(1, "x"), (2, None)]))
    assert left.digest == right.digest


def test_an_empty_table_and_a_frame_can_be_published(store: Store) -> None:
    assert store.read_rows(store.publish_table("t", "0", [])) == []
    frame = pd.DataFrame({"a": [1, 2], "s": ["x", None]})
    rows = store.read_rows(store.publish_table("t", "1", frame))
    assert rows == [{"a": 1, "s": "x"}, {"a": 2, "s": None}]


def test_a_column_of_mixed_types_is_refused_by_name(store: Store) -> None:
    with pytest.raises(DataError, match="column 'a'"):
        store.publish_table("t", "1", [{"a": 1}, {"a": "x"}])


def test_fetch_gives_a_read_only_folder_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "deep" / "w.bin").write_bytes(b"w" * 1000)
    handle = store.publish_dir("m", "1", source)
    folder = store.fetch(handle)
    assert (folder / "deep" / "w.bin").read_bytes() == b"w" * 1000
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "config.json",
        "deep/w.bin",
    }
    assert (folder / "config.json").stat().st_mode & 0o222 == 0
    assert store.fetch(handle) == folder


def test_list_names_published_versions_by_prefix(store: Store) -> None:
    a = store.publish("runs/a", "1", {"f": b"1"})
    b = store.publish("runs/b", "1", {"f": b"2"})
    c = store.publish("other", "1", {"f": b"3"})
    assert store.list() == [c, a, b]
    assert store.list("runs/") == [a, b]


@pytest.mark.parametrize("prefix", ["../../", "runs/../..", "/", "a/."])
def test_a_prefix_that_climbs_out_of_the_store_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(ConfigError, match="unusable beginning of a name"):
        store.list(prefix)


def test_a_pointer_moves_only_from_where_it_is_expected(store: Store) -> None:
    a = store.publish("m", "1", {"f": b"1"})
    b = store.publish("m", "2", {"f": b"2"})
    assert store.pointer("m/LATEST") is None
    store.swap_pointer("m/LATEST", a, expected=None)
    assert store.pointer("m/LATEST") == a
    with pytest.raises(ConflictError, match="LATEST"):
        store.swap_pointer("m/LATEST", b, expected=None)
    store.swap_pointer("m/LATEST", b, expected=a)
    with pytest.raises(ConflictError):
        store.swap_pointer("m/LATEST", a, expected=a)
    assert store.pointer("m/LATEST") == b


def test_exists_notices_a_missing_and_a_shortened_object(store: Store) -> None:
    handle = store.publish("x", "1", {"f": b"hello", "g": b"world"})
    assert store.exists(handle)
    ref = store.manifest(handle).objects["f"]
    store.backend.put(ref.key, b"hell")
    assert not store.exists(handle)
    store.backend.delete(ref.key)
    assert not store.exists(handle)


def test_publishing_again_heals_a_lost_object(store: Store) -> None:
    handle = store.publish("x", "1", {"f": b"hello"})
    store.backend.delete(store.manifest(handle).objects["f"].key)
    assert store.publish("x", "1", {"f": b"hello"}) == handle
    assert store.exists(handle)


@pytest.mark.parametrize("size", [5, 300_000])
def test_publishing_again_heals_a_rotten_object_of_the_right_size(store: Store, size: int) -> None:
    content = b"h" * size
    handle = store.publish("x", "1", {"f": content})
    key = store.manifest(handle).objects["f"].key
    for name in ("x", "y"):
        store.backend.put(key, b"r" * size)
        assert store.read_bytes(store.publish(name, "1", {"f": content}), "f") == content


def test_a_version_that_lost_a_file_is_published_anew_though_the_content_differs(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.publish("x", "1", {"f": b"hello"})
    store.backend.delete(store.manifest(old).objects["f"].key)
    with pytest.raises(ConflictError):
        store.publish("x", "1", {"f": b"other"}, first_wins=False)
    new = store.publish("x", "1", {"f": b"other"})
    assert store.read_bytes(new, "f") == b"other"
    assert "x@1 has lost files" in caplog.text
    assert store.publish("x", "1", {"f": b"late"}) == new


def test_of_two_who_publish_over_a_lost_version_one_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.publish("x", "1", {"f": b"hello"})
    store.backend.delete(store.manifest(old).objects["f"].key)
    other = Store(store.root)
    won: list[Handle] = []
    put = store.backend.put

    def put_late(key: str, source: bytes | Path) -> None:
        put(key, source)
        won.append(other.publish("x", "1", {"f": b"first"}))

    monkeypatch.setattr(store.backend, "put", put_late)
    assert store.publish("x", "1", {"f": b"second"}) == won[0]


def test_a_lost_version_that_is_forgotten_meanwhile_is_published_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.publish("x", "1", {"f": b"hello"})
    store.backend.delete(store.manifest(old).objects["f"].key)
    put = store.backend.put

    def put_late(key: str, source: bytes | Path) -> None:
        put(key, source)
        Store(store.root).forget([old])

    monkeypatch.setattr(store.backend, "put", put_late)
    assert store.exists(store.publish("x", "1", {"f": b"other"}))


@pytest.mark.parametrize("size", [5, 300_000])
def test_a_file_that_a_collection_takes_while_it_is_published_is_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The collection has looked at the old file before it was written anew."""
    content = b"h" * size
    key = store.manifest(store.publish("old", "1", {"f": content})).objects["f"].key
    monkeypatch.setattr(store_module, "REUSED_FOR_S", 0)
    create = store.backend.create

    def create_late(manifest_key: str, data: bytes) -> bool:
        store.backend.delete(key)
        return create(manifest_key, data)

    monkeypatch.setattr(store.backend, "create", create_late)
    assert store.exists(store.publish("new", "1", {"f": content}))


def test_a_file_that_changes_after_it_was_measured_is_not_published(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    read = store.backend.read

    def read_late(key: str) -> Tagged:
        path.write_bytes(b"other")
        return read(key)

    with monkeypatch.context() as changing:
        changing.setattr(store.backend, "read", read_late)
        with pytest.raises(StoreError, match="changed while it was stored"):
            store.publish("x", "1", {"f": path})
    assert store.find("x", "1") is None


def test_a_damaged_object_that_is_removed_as_told_is_made_anew(store: Store) -> None:
    handle = store.publish("x", "1", {"f": b"hello"})
    key = store.manifest(handle).objects["f"].key
    store.backend.put(key, b"hellx")
    with pytest.raises(CorruptionError, match="remove it from the store and run again"):
        store.read_bytes(handle, "f")
    store.backend.delete(key)
    assert not store.exists(handle)
    assert store.exists(store.publish("x", "1", {"f": b"hello"}))


def test_damaged_bytes_are_refused_by_name(store: Store) -> None:
    handle = store.publish("x", "1", {"f": b"hello"})
    ref = store.manifest(handle).objects["f"]
    store.backend.put(ref.key, b"hellx")
    with pytest.raises(CorruptionError, match=ref.sha256):
        store.read_bytes(handle, "f")
    with pytest.raises(CorruptionError, match=ref.sha256):
        store.fetch(handle)


def test_a_store_crosses_a_process_boundary(store: Store) -> None:
    handle = store.publish("x", "1", {"f": b"hello"})
    assert pickle.loads(pickle.dumps(store)).read_bytes(handle, "f") == b"hello"


@pytest.mark.parametrize(
    "name",
    ["", "/x", "x/", "../x", "x/../y", ".hidden", "a b", "x\n", "a//b", "x.json/y", "a" * 129],
)
def test_names_that_could_leave_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(ConfigError, match="unusable name"):
        store.publish(name, "1", {"f": b"x"})
    with pytest.raises(ConfigError):
        store.publish("x", name, {"f": b"x"})


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../../x", "a//b", "a\\b", "a\0b", "."])
def test_file_paths_that_could_leave_the_artefact_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="unsafe file path"):
        Store(tmp_path / "s").publish("x", "1", {path: b"x"})


def test_a_root_of_an_unknown_kind_or_without_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown kind of store"):
        Store("gopher://x/y")
    with pytest.raises(ConfigError, match="no bucket"):
        Store("s3://")


@pytest.mark.parametrize(
    ("root", "why"),
    [("", "is empty"), ("~no-such-user/x", "home"), ("x" * 300, "File name too long")],
)
def test_a_root_that_can_not_be_looked_at_is_refused_in_one_line(root: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Store(root)


@pytest.mark.integration
def test_a_cache_that_can_not_be_written_says_how_to_choose_another(
    s3_root: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(s3_root, cache=tmp_path / "file")
    handle = store.publish("x", "1", {"f": b"hello"})
    with pytest.raises(StoreError, match="set STILL_CACHE"):
        store.read_bytes(handle, "f")


def test_what_another_user_fetched_is_served_though_its_stamp_can_not_be_renewed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = store.publish("x", "1", {"f": b"hello"})
    store.fetch(handle)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert (store.fetch(handle) / "f").read_bytes() == b"hello"
    assert store.read_bytes(handle, "f") == b"hello"


def test_users_of_one_group_share_the_locks_of_a_folder(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        store = Store(tmp_path)
        store.fetch(store.publish("x", "1", {"f": b"hello"}))
        store.lease("work", ttl_s=5, owner="a").release()
    finally:
        os.umask(before)
    locks = [*tmp_path.glob(".locks/*"), *tmp_path.glob(".cache/locks/*")]
    assert len(locks) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in locks} == {0o664}


def test_check_writable_says_why_a_root_can_not_be_used(tmp_path: Path) -> None:
    Store(tmp_path / "new").check_writable()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="not a folder"):
        Store(tmp_path / "file").check_writable()


def test_publishing_what_stands_writes_nothing(store: Store) -> None:
    store.publish("x", "1", {"f": b"hello", "g": b"world"}, meta={"k": 1})
    before = [*store.backend.scan("objects/"), *store.backend.scan("manifests/")]
    store.publish("x", "1", {"f": b"hello", "g": b"world"}, meta={"k": 1})
    assert [*store.backend.scan("objects/"), *store.backend.scan("manifests/")] == before


@pytest.mark.integration
def test_a_remote_object_is_read_once_and_a_damaged_copy_is_replaced(
    s3_root: str, tmp_path: Path
) -> None:
    store = Store(s3_root, cache=tmp_path / "cache")
    handle = store.publish("x", "1", {"f": b"hello"})
    ref = store.manifest(handle).objects["f"]
    store.read_bytes(handle, "f")
    cached = tmp_path / "cache" / "objects" / ref.sha256
    assert cached.read_bytes() == b"hello"
    store.backend.delete(ref.key)
    assert store.read_bytes(handle, "f") == b"hello"
    store.backend.put(ref.key, b"hello")
    cached.unlink()
    cached.write_bytes(b"jello")
    assert store.read_bytes(handle, "f") == b"hello"
    assert cached.read_bytes() == b"hello"


@pytest.mark.integration
def test_the_cache_drops_what_was_used_least_recently(s3_root: str, tmp_path: Path) -> None:
    store = Store(s3_root, cache=tmp_path / "cache", cache_limit_bytes=2500)
    for number in range(4):
        handle = store.publish("x", str(number), {"f": bytes([number]) * 1000})
        store.read_bytes(handle, "f")
    assert len(list((tmp_path / "cache" / "objects").iterdir())) == 2
