"""A bucket as back end, through s3fs. Every put is atomic, conditional puts decide races.

Retries are ours, not the client's: after a reply was lost, a conditional put that did succeed
answers "precondition failed" to its own repetition, so the bytes are read back before a race counts
as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from still_core.errors import ConfigError, CorruptionError, MissingError, StoreError, explain
from still_core.store.backend import Stat, Tagged
from still_core.store.crashpoint import crashpoint
from still_core.store.retry import Failure, RetryPolicy, with_retries

Reply = TypeVar("Reply")

PART_BYTES = 16 * 2**20
"""Least size of one part of a multipart upload, and size of one block of a download."""
MAX_PARTS = 10_000
"""What S3 takes in one upload."""
CONCURRENT_PARTS = 8
SLOWEST_BYTES_PER_S = 200_000
"""A request that moves less than this is given up and tried again."""


class _DamagedTransfer(Exception):
    """Bytes changed on the way; the request is tried again."""


class _OtherBytes(_DamagedTransfer):
    """All bytes came, and they are not those of the ETag: on the way, or where they lie."""


class S3Backend:
    """Keys are objects below `s3://bucket/prefix`; endpoint and credentials from `AWS_*`."""

    is_local = False

    def __init__(self, uri: str, retry: RetryPolicy | None = None) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(explain("no bucket in the store's root", got=uri))
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self.root = "s3://" + "/".join(part for part in (bucket, self._prefix) if part)
        self._retry = retry or RetryPolicy()
        self._filesystem: Any = None
        self._pid = 0

    def check_writable(self) -> None:
        """Put and delete one small object."""
        key = f".probe/{uuid.uuid4().hex}"
        self.put(key, b"probe")
        self.delete(key)

    def read(self, key: str) -> Tagged:
        """All bytes, their length and plain ETag checked."""

        async def get(fs: Any) -> Tagged:
            reply = await fs._call_s3("get_object", Bucket=self._bucket, Key=self._key(key))
            async with reply["Body"] as body:
                data = await body.read()
            _check_transfer(key, data, reply)
            return Tagged(data, reply["ETag"], reply["LastModified"].timestamp())

        return self._call("read", key, get)

    def download(self, key: str, target: Path) -> None:
        """Fetch blocks in parallel into `target`."""
        stat = self.stat(key)
        if stat is None:
            raise self._missing(key)
        target.touch()
        os.truncate(target, stat.size)

        def fetch(start: int) -> None:
            block = self._read_range(key, start, min(start + PART_BYTES, stat.size))
            with target.open("r+b") as file:
                file.seek(start)
                file.write(block)

        with ThreadPoolExecutor(CONCURRENT_PARTS) as pool:
            list(pool.map(fetch, range(0, stat.size, PART_BYTES)))

    def stat(self, key: str) -> Stat | None:
        """Size and time, one HEAD."""

        async def head(fs: Any) -> Stat:
            reply = await fs._call_s3("head_object", Bucket=self._bucket, Key=self._key(key))
            return Stat(key, int(reply["ContentLength"]), reply["LastModified"].timestamp())

        try:
            return self._call("look up", key, head)
        except MissingError:
            return None

    def holds(self, key: str, source: bytes | Path, sha256: str) -> bool:
        """By size, and by the ETag where that is the MD5 of the bytes."""
        size = source.stat().st_size if isinstance(source, Path) else len(source)

        async def head(fs: Any) -> Any:
            return await fs._call_s3("head_object", Bucket=self._bucket, Key=self._key(key))

        try:
            reply = self._call("look up", key, head)
        except MissingError:
            return False
        if int(reply["ContentLength"]) != size:
            return False
        if not _is_plain_md5(reply):
            return True
        data = source.read_bytes() if isinstance(source, Path) else source
        return _fits_etag(data, reply)

    def put(self, key: str, source: bytes | Path) -> None:
        """One put, or a parallel multipart upload for a large file; checksums sent and compared."""
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if size > PART_BYTES:
            self._put_parts(key, size, source)
            return
        crashpoint("mid-object")
        self._put(key, source.read_bytes() if isinstance(source, Path) else source)

    def create(self, key: str, data: bytes) -> bool:
        """Put with `If-None-Match: *`."""
        crashpoint("mid-create")
        return self._put_if(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        """Put with `If-Match: tag`."""
        return self._put_if(key, data, IfMatch=tag)

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Pages of 1000 keys, straight from the server."""
        token: str | None = None
        cut = len(self._key(""))
        while True:
            page = self._list_page(prefix, token)
            for entry in page.get("Contents", []):
                modified = entry["LastModified"].timestamp()
                yield Stat(entry["Key"][cut:], int(entry["Size"]), modified)
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return

    def delete(self, key: str) -> None:
        """Delete is idempotent on S3."""

        async def remove(fs: Any) -> None:
            await fs._call_s3("delete_object", Bucket=self._bucket, Key=self._key(key))

        try:
            self._call("remove", key, remove)
        except MissingError:
            return

    def sweep_unfinished(self, *, older_than_s: float, dry_run: bool) -> list[str]:
        """Multipart uploads whose writer died."""

        now, swept = self.now(), []
        for upload in list(self._uploads()):
            if now - upload["Initiated"].timestamp() < older_than_s:
                continue
            swept.append(f"upload of {upload['Key']}")
            if not dry_run:
                self._abort(upload["Key"], upload["UploadId"])
        return swept

    def now(self) -> float:
        """The server's clock, from the `Date` header of a reply."""

        async def ask(fs: Any) -> float:
            reply = await fs._call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=self._key(".clock"), MaxKeys=1
            )
            date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
            stamp = parsedate_to_datetime(date) if date else datetime.now(UTC)
            return stamp.timestamp()

        return self._call("ask the time of", "", ask)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _fs(self) -> Any:
        if self._filesystem is None or self._pid != os.getpid():
            self._filesystem, self._pid = _shared_client(self._retry.timeout_s), os.getpid()
        return self._filesystem

    def _call(
        self,
        verb: str,
        key: str,
        request: Callable[[Any], Awaitable[Reply]],
        num_bytes: int = PART_BYTES,
    ) -> Reply:
        """Run `request(filesystem)` on the client's loop, with retries and one-line errors.

        Args:
            verb: what is done, for people.
            key: to what.
            request: may be made again.
            num_bytes: most that one request moves; it gets time for so much.
        """
        from fsspec.asyn import sync

        async def bounded(fs: Any) -> Reply:
            # A block that trickles in keeps the socket's own time-out from firing.
            limit_s = self._retry.timeout_s + num_bytes / SLOWEST_BYTES_PER_S
            return await asyncio.wait_for(request(fs), limit_s)

        def attempt() -> Reply:
            fs = self._fs()
            try:
                reply: Reply = sync(fs.loop, bounded, fs)
                return reply
            except OSError as error:
                # s3fs turns the client's errors into OSErrors; the reply's code is in the cause.
                raise (error.__cause__ or error) from None

        def give_up(error: BaseException, failure: Failure, code: str) -> Exception:
            if failure is Failure.MISSING:
                return self._missing(key)
            if failure is Failure.CONFLICT:
                return _PreconditionFailed()
            if verb == "read" and isinstance(error, _OtherBytes):
                return self._rotten(key)
            return self._failure(verb, key, failure, code)

        return with_retries(attempt, self._retry, give_up=give_up)

    def _missing(self, key: str) -> MissingError:
        return MissingError(explain("not in the store", got=f"{self.root}/{key}"))

    def _rotten(self, key: str) -> CorruptionError:
        what = f"{self.root}/{key} is damaged: its bytes never fit its own checksum"
        remedy = "remove it from the store and run again: what made it publishes it anew"
        return CorruptionError(
            explain(what, got=f"{self._retry.attempts} damaged reads", remedy=remedy)
        )

    def _failure(self, verb: str, key: str, failure: Failure, code: str) -> StoreError:
        remedies = {
            Failure.CREDENTIALS: "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_SESSION_TOKEN and the rights on the bucket",
            Failure.TRANSIENT: f"gave up after {self._retry.attempts} tries; check "
            "AWS_ENDPOINT_URL and the service, then run again",
        }
        what = f"can not {verb} {self.root}/{key}: {code}"
        return StoreError(explain(what, remedy=remedies.get(failure, "")))

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        async def send(fs: Any) -> None:
            reply = await fs._call_s3(
                "put_object", Bucket=self._bucket, Key=self._key(key), Body=data, **condition
            )
            _check_etag(key, data, reply)

        self._call("write", key, send)

    def _put_if(self, key: str, data: bytes, **condition: str) -> bool:
        try:
            self._put(key, data, **condition)
        except (_PreconditionFailed, MissingError):
            try:
                return self.read(key).data == data
            except MissingError:
                return False
        return True

    def _list_page(self, prefix: str, token: str | None) -> Any:
        page = {"ContinuationToken": token} if token else {}

        async def ask(fs: Any) -> Any:
            return await fs._call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=self._key(prefix), **page
            )

        return self._call("list", prefix, ask)

    def _read_range(self, key: str, start: int, stop: int) -> bytes:
        async def get(fs: Any) -> bytes:
            reply = await fs._call_s3(
                "get_object",
                Bucket=self._bucket,
                Key=self._key(key),
                Range=f"bytes={start}-{stop - 1}",
            )
            async with reply["Body"] as body:
                data: bytes = await body.read()
            if len(data) != stop - start:
                raise _DamagedTransfer(f"{key}: {len(data)} of {stop - start} bytes")
            return data

        return self._call("read", key, get)

    def _put_parts(self, key: str, size: int, source: bytes | Path) -> None:
        """Parts in parallel; a reader sees nothing before `complete`; a failure aborts them all."""
        full, part = self._key(key), part_bytes(size)

        async def begin(fs: Any) -> str:
            reply = await fs._call_s3("create_multipart_upload", Bucket=self._bucket, Key=full)
            return str(reply["UploadId"])

        upload = self._call("write", key, begin)

        def send(number: int) -> dict[str, Any]:
            return self._send_part(key, upload, number, _block(source, (number - 1) * part, part))

        try:
            with ThreadPoolExecutor(CONCURRENT_PARTS) as pool:
                parts = list(pool.map(send, range(1, -(-size // part) + 1)))
            crashpoint("mid-multipart")
            self._complete(key, upload, parts, size)
        except BaseException:
            self._abort(full, upload)
            raise

    def _send_part(self, key: str, upload: str, number: int, data: bytes) -> dict[str, Any]:
        async def send(fs: Any) -> dict[str, Any]:
            reply = await fs._call_s3(
                "upload_part",
                Bucket=self._bucket,
                Key=self._key(key),
                UploadId=upload,
                PartNumber=number,
                Body=data,
            )
            _check_etag(key, data, reply)
            return {"PartNumber": number, "ETag": reply["ETag"]}

        return self._call("write", key, send, max(PART_BYTES, len(data)))

    def _complete(self, key: str, upload: str, parts: list[dict[str, Any]], size: int) -> None:
        async def finish(fs: Any) -> None:
            await fs._call_s3(
                "complete_multipart_upload",
                Bucket=self._bucket,
                Key=self._key(key),
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            )

        # An upload that is gone was completed, and the reply lost, or it failed: the object tells.
        with contextlib.suppress(MissingError):
            self._call("write", key, finish)
        found = self.stat(key)
        if found is None or found.size != size:
            raise StoreError(explain(f"upload of {self.root}/{key} did not complete"))

    def _uploads(self) -> Iterator[Any]:
        """All unfinished multipart uploads, in pages of 1000."""
        markers: dict[str, str] = {}

        async def ask(fs: Any) -> Any:
            return await fs._call_s3(
                "list_multipart_uploads", Bucket=self._bucket, Prefix=self._key(""), **markers
            )

        while True:
            page = self._call("list uploads of", "", ask)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            markers = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def _abort(self, full_key: str, upload: str) -> None:
        async def abort(fs: Any) -> None:
            await fs._call_s3(
                "abort_multipart_upload", Bucket=self._bucket, Key=full_key, UploadId=upload
            )

        try:
            self._call("abort the upload of", full_key, abort)
        except MissingError:
            return


_clients: dict[tuple[int, str, float], Any] = {}
_clients_lock = threading.Lock()


def _shared_client(timeout_s: float) -> Any:
    """One client per process and setting: making one takes 0.3 s, and none survives a fork."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    key = (os.getpid(), hashlib.sha256(repr(settings).encode()).hexdigest(), timeout_s)
    with _clients_lock:
        if key not in _clients:
            import s3fs

            client = s3fs.S3FileSystem(
                use_listings_cache=False,
                skip_instance_cache=True,
                config_kwargs={
                    "retries": {"total_max_attempts": 1, "mode": "standard"},
                    "connect_timeout": min(10.0, timeout_s),
                    "read_timeout": timeout_s,
                    "max_pool_connections": 4 * CONCURRENT_PARTS,
                },
            )
            client.retries = 1
            _clients[key] = client
        return _clients[key]


def _replace_lock_after_fork() -> None:
    global _clients_lock
    _clients_lock = threading.Lock()


os.register_at_fork(after_in_child=_replace_lock_after_fork)


def part_bytes(size: int) -> int:
    """Bytes of each part so that an object of `size` bytes needs at most `MAX_PARTS`."""
    return max(PART_BYTES, -(-size // MAX_PARTS))


def _block(source: bytes | Path, start: int, size: int) -> bytes:
    if isinstance(source, bytes):
        return source[start : start + size]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(size)


class _PreconditionFailed(Exception):
    """A conditional put met something else than it expected."""


def _is_plain_md5(reply: Any) -> bool:
    """Whether the ETag is the MD5 of the bytes: not after multipart, nor under SSE-KMS or -C."""
    etag = str(reply.get("ETag", "")).strip('"')
    encrypted = str(reply.get("ServerSideEncryption", "")).startswith("aws:kms")
    return len(etag) == 32 and not encrypted and "SSECustomerAlgorithm" not in reply


def _check_etag(key: str, data: bytes, reply: Any) -> None:
    if _is_plain_md5(reply) and not _fits_etag(data, reply):
        raise _OtherBytes(f"{key}: bytes differ from the ETag")


def _fits_etag(data: bytes, reply: Any) -> bool:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return bool(reply["ETag"].strip('"').lower() == md5)


def _check_transfer(key: str, data: bytes, reply: Any) -> None:
    if len(data) != int(reply["ContentLength"]):
        raise _DamagedTransfer(f"{key}: {len(data)} of {reply['ContentLength']} bytes")
    if len(data) <= PART_BYTES:
        _check_etag(key, data, reply)
