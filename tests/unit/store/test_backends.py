"""Back ends where the disk or the service behaves badly."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import CorruptionError, StoreError
from still_core.store import RetryPolicy, Store
from still_core.store.local import LocalBackend
from still_core.store.s3 import MAX_PARTS, PART_BYTES, S3Backend, part_bytes
from still_core.store.shardlog import ShardLog

NOW = datetime.datetime.now(datetime.UTC)
SHARD = f"{0:013d}-{'a' * 12}-000001-1-{'b' * 64}.parquet"


class Body:
    """The body of a reply."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def read(self) -> bytes:
        return self._data


class RottenBucket:
    """A service whose one object differs from its ETag, and whose uploads fill two pages."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: str) -> None:
        self.loop, self._key = loop, key
        self.asked: list[str] = []
        self.stored: dict[str, bytes] = {}

    async def _call_s3(self, operation: str, **asked: Any) -> Any:
        self.asked.append(operation)
        data = b'{"rotten": 1}'
        facts = {"ETag": f'"{"0" * 32}"', "LastModified": NOW, "ContentLength": len(data)}
        if operation == "list_objects_v2":
            found = [{"Key": self._key, "Size": len(data), "LastModified": NOW}]
            return {"Contents": found, "ResponseMetadata": {"HTTPHeaders": {}}}
        if operation == "list_multipart_uploads":
            return self._uploads(second="KeyMarker" in asked)
        if operation == "put_object":
            self.stored[asked["Key"]] = asked["Body"]
            return {"ETag": "no MD5"}
        return {**facts, "Body": Body(data)}

    def _uploads(self, *, second: bool) -> dict[str, Any]:
        old = NOW - datetime.timedelta(days=9)
        page = [{"Key": f"p/{second}", "UploadId": "u", "Initiated": old}]
        last = {"NextKeyMarker": "p/False", "NextUploadIdMarker": "u"}
        return {"Uploads": page, "IsTruncated": not second, **({} if second else last)}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread, as the client has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class BucketBackend(S3Backend):
    """The back end over a bucket of the test."""

    def __init__(self, bucket: RottenBucket) -> None:
        super().__init__("s3://b/p", RetryPolicy(base_s=0.0, cap_s=0.0))
        self._bucket_of_test = bucket

    def _fs(self) -> Any:
        return self._bucket_of_test


def store_over(bucket: RottenBucket, cache: Path) -> Store:
    store = Store("s3://b/p", cache=cache)
    store._backend = BucketBackend(bucket)
    return store


def test_a_manifest_that_rotted_in_the_bucket_is_named_and_can_be_left_out(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    bucket = RottenBucket(loop, "p/manifests/m/checkpoints/step-1.json")
    store = store_over(bucket, tmp_path)
    with pytest.raises(CorruptionError, match=r"step-1\.json is damaged.*remove it"):
        store.manifests("m/checkpoints/")
    assert bucket.asked.count("get_object") == RetryPolicy().attempts
    assert store.manifests("m/checkpoints/", skip_damaged=True) == []


def test_a_shard_that_rotted_in_the_bucket_is_set_aside_with_its_bytes(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    bucket = RottenBucket(loop, f"p/bank/rollouts/{SHARD}")
    shards = ShardLog(store_over(bucket, tmp_path), "bank/rollouts", columns=())
    (shard,) = shards.shards()
    assert not shards.is_whole(shard)
    assert shards.quarantine(SHARD)
    assert bucket.stored == {f"p/bank/rollouts-damaged/{SHARD}": b'{"rotten": 1}'}
    assert bucket.asked[-1] == "delete_object"


def test_unfinished_uploads_are_found_on_every_page(loop: asyncio.AbstractEventLoop) -> None:
    bucket = RottenBucket(loop, "p/x")
    swept = BucketBackend(bucket).sweep_unfinished(older_than_s=3600.0, dry_run=False)
    assert swept == ["upload of p/False", "upload of p/True"]
    assert bucket.asked.count("abort_multipart_upload") == 2


@pytest.mark.parametrize("size", [1, PART_BYTES * MAX_PARTS, PART_BYTES * MAX_PARTS + 1, 2**42])
def test_parts_grow_so_that_an_upload_has_no_more_than_it_may(size: int) -> None:
    assert part_bytes(size) >= PART_BYTES
    assert -(-size // part_bytes(size)) <= MAX_PARTS


def test_what_a_folder_refuses_is_told_in_one_line_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("a file where a folder should be")
    (tmp_path / "bank").write_text("a file where a folder should be")
    backend = LocalBackend(str(tmp_path))
    with pytest.raises(StoreError, match=r"can not list .*; mend the cause"):
        list(backend.scan("n" * 300 + "/"))
    with pytest.raises(StoreError, match="can not lock pointers"):
        backend.replace("pointers/x.json", b"", tag="")
    with pytest.raises(StoreError, match="can not make the folder"):
        backend.put("bank/rollouts/x", b"")
