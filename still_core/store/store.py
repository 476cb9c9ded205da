"""The store: one root, a folder or a bucket, that holds published artefacts and nothing half done.

files -> objects/<sha256> -> manifests/<name>/<version>.json -> handle. Objects are written first
and the manifest last, by a conditional put: a reader trusts only manifests, and checks size and
sha256 of whatever it reads. A published version never changes. Crash anywhere: the version is there
or it is not.
"""

from __future__ import annotations

import builtins
import hashlib
import logging
import os
import stat as stat_bits
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from still_core.errors import (
    ConfigError,
    ConflictError,
    CorruptionError,
    DataError,
    MissingError,
    StoreError,
    explain,
)
from still_core.store.backend import Backend, Stat, Tagged, system_failure
from still_core.store.cache import ReadCache, is_whole, sha256_of
from still_core.store.crashpoint import crashpoint
from still_core.store.document import seal, unseal
from still_core.store.garbage import MIN_AGE_S, REUSED_FOR_S, GarbageReport, collect_garbage
from still_core.store.handle import Handle
from still_core.store.lease import Lease, acquire
from still_core.store.local import LocalBackend
from still_core.store.manifest import (
    Manifest,
    ObjectRef,
    manifest_key,
    parse_manifest,
)
from still_core.store.names import check_name, check_relpaths, check_version
from still_core.store.retry import RetryPolicy
from still_core.store.tables import TABLE_FILE, decode_table, table_bytes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

CONCURRENT_REQUESTS = 16
READS_OF_DAMAGED = 3
"""Bytes may be damaged on the way: a damaged read is repeated before the store itself is blamed."""
SMALL_OBJECT = 256 * 1024
QUARANTINE_TTL_S = 30.0
CACHE_LIMIT_BYTES = 200 * 2**30


class Survey(NamedTuple):
    """What a listing found."""

    manifests: list[Manifest]
    damaged: dict[str, str]
    """Why each damaged manifest can not be read, by its key."""


class _Source(NamedTuple):
    """Content to publish, measured."""

    ref: ObjectRef
    content: Path | bytes
    state: tuple[int, int, int] | None
    """Time of change, size and inode of a file before it was measured; None for bytes."""


class Store:
    """Published artefacts below one root. Cheap to make, shared by threads, picklable."""

    def __init__(
        self,
        root: str | Path,
        *,
        cache: Path | None = None,
        cache_limit_bytes: int = CACHE_LIMIT_BYTES,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Name a root; nothing is touched before the first call.

        Args:
            root: a local folder or `s3://bucket/prefix`.
            cache: where read objects are kept; default `.cache` in a local root, else
                `$STILL_CACHE` or `~/.cache/still`.
            cache_limit_bytes: cached objects beyond it are dropped, least recently used first.
            retry: patience with a remote store.

        Raises:
            ConfigError: no such kind of root, or the system does not let it be looked at.
        """
        self._arguments = (str(root), cache, cache_limit_bytes, retry)
        self._backend = _open_backend(str(root), retry)
        self._clock: float | None = None
        self._verified: set[str] = set()
        self._told_damaged: set[str] = set()
        try:
            folder = cache or _default_cache(self._backend)
        except OSError as error:
            raise ConfigError(
                explain(
                    f"can not look at the store's root ({error.strerror})",
                    got=str(root),
                    expected="a folder that this user may enter, or s3://bucket/prefix",
                )
            ) from error
        self._cache = ReadCache(folder, limit_bytes=cache_limit_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._arguments

    @property
    def root(self) -> str:
        """Absolute path or `s3://bucket/prefix`."""
        return self._backend.root

    @property
    def backend(self) -> Backend:
        """The folder or bucket itself, for rooms that keep their own keys (the bank)."""
        return self._backend

    def check_writable(self) -> None:
        """Write and remove one small object.

        Raises:
            StoreError: one line: what is wrong with the root or the credentials.
        """
        self._backend.check_writable()

    def publish(
        self,
        name: str,
        version: str,
        files: Mapping[str, Path | bytes],
        *,
        meta: Mapping[str, Any] | None = None,
        first_wins: bool = True,
    ) -> Handle:
        """Store `files` and make them exist as `name`@`version`, all at once.

        Args:
            name: may hold `/`.
            version: one segment; a published version never changes.
            files: content by path inside the artefact.
            meta: JSON facts kept in the manifest, no part of the digest. `parents`, a list of
                digests, is what lineage follows.
            first_wins: where the version exists whole with other content, return it; where a file
                of it is lost, publish in its place. Else refuse both.

        Returns:
            The handle of what stands under the version now.

        Raises:
            ConflictError: other content stands there and `first_wins` is False.
        """
        check_name(name), check_version(version)
        check_relpaths(list(files))
        measured = dict(zip(files, _in_parallel(_measure, list(files.values())), strict=True))
        refs = {path: source.ref for path, source in measured.items()}
        manifest = Manifest(name=name, version=version, objects=refs, meta=dict(meta or {}))
        sources = list({source.ref: source for source in measured.values()}.values())
        existing = self._read_manifest(name, version)
        stands = existing is not None and existing.digest == manifest.digest
        if existing is not None and not stands:
            if not first_wins or self.exists(self.handle_of(existing)):
                return self._settle_conflict(existing, manifest, first_wins)
            logger.warning("%s@%s has lost files: it is published anew", name, version)
        crashpoint("before-object")
        if stands:
            _in_parallel(self._heal_object, sources)
            return self.handle_of(manifest)
        renewed = [
            source
            for source, over in zip(sources, _in_parallel(self._put_object, sources), strict=True)
            if over
        ]
        crashpoint("after-object")
        crashpoint("before-manifest")
        if not self._write_manifest(manifest, over=existing):
            winner = self._require_manifest(name, version)
            if winner.digest != manifest.digest:
                return self._settle_conflict(winner, manifest, first_wins)
        crashpoint("after-manifest")
        # A garbage collection may have looked at an old object just before it was written anew.
        present = _in_parallel(self._is_present, [source.ref for source in renewed])
        _in_parallel(
            self._put_object,
            [source for source, stays in zip(renewed, present, strict=True) if not stays],
        )
        return self.handle_of(manifest)

    def publish_dir(
        self,
        name: str,
        version: str,
        directory: Path,
        *,
        meta: Mapping[str, Any] | None = None,
        first_wins: bool = True,
    ) -> Handle:
        """Publish every regular file below `directory`.

        Raises:
            DataError: a symbolic link or special file: it could smuggle in what lies elsewhere.
        """
        files: dict[str, Path | bytes] = dict(_regular_files(directory, ""))
        if not files:
            raise DataError(explain("nothing to publish in the folder", got=str(directory)))
        return self.publish(name, version, files, meta=meta, first_wins=first_wins)

    def publish_table(
        self,
        name: str,
        version: str,
        rows: Iterable[Mapping[str, Any]] | pd.DataFrame,
        *,
        meta: Mapping[str, Any] | None = None,
        first_wins: bool = True,
    ) -> Handle:
        """Publish rows as `data.parquet`; equal rows give equal bytes."""
        data = table_bytes(rows)
        return self.publish(name, version, {TABLE_FILE: data}, meta=meta, first_wins=first_wins)

    def find(self, name: str, version: str) -> Handle | None:
        """The handle of a published version, None where there is none."""
        check_name(name), check_version(version)
        manifest = self._read_manifest(name, version)
        return None if manifest is None else self.handle_of(manifest)

    def manifest(self, handle: Handle) -> Manifest:
        """What the handle's version holds.

        Raises:
            MissingError: the version is not in this store.
            CorruptionError: it holds something else than the handle names.
        """
        manifest = self._require_manifest(handle.name, handle.version)
        if manifest.digest != handle.digest:
            what = f"{handle.name}@{handle.version} is not what the handle names: digest"
            raise CorruptionError(explain(what, got=manifest.digest, expected=handle.digest))
        return manifest

    def exists(self, handle: Handle) -> bool:
        """Whether the manifest stands, its digest is equal, and every file has its size."""
        try:
            manifest = self.manifest(handle)
        except (MissingError, CorruptionError):
            return False
        refs = list(set(manifest.objects.values()))
        if self._backend.is_local:
            return all(self._is_present(ref) for ref in refs)
        return all(_in_parallel(self._is_present, refs))

    def read_bytes(self, handle: Handle, relpath: str) -> bytes:
        """One file, size and sha256 verified."""
        manifest = self.manifest(handle)
        ref = manifest.objects.get(relpath)
        if ref is None:
            known = ", ".join(sorted(manifest.objects)[:10])
            raise MissingError(
                explain(f"no such file in {handle.name}", got=relpath, expected=known)
            )
        return self._object_path(ref).read_bytes() if self._caches() else self._read_object(ref)

    def read_rows(self, handle: Handle) -> list[dict[str, Any]]:
        """A published table as plain Python rows: lists, and None for null."""
        rows: list[dict[str, Any]] = self._arrow(handle).to_pylist()
        return rows

    def fetch(self, handle: Handle) -> Path:
        """A local read-only folder with all files, verified; made once, then reused."""
        manifest = self.manifest(handle)
        objects = manifest.objects
        if self._caches():
            _in_parallel(self._object_path, list(set(objects.values())))
        try:
            folder = self._cache.tree(manifest.digest, objects, self._fetch_object)
        except OSError as error:
            raise _cache_failure(error) from error
        crashpoint("after-fetch")
        return folder

    def local_copy(self, key: str, ref: ObjectRef, *, verify_again: bool = False) -> Path:
        """A local file with the bytes of `key`, verified once per process; not to be written to.

        For rooms that keep their own keys (the bank).

        Args:
            key: where the bytes lie.
            ref: what they should be.
            verify_again: also where this process has verified them before.

        Raises:
            MissingError: `key` is not in the store.
            CorruptionError: it does not fit `ref`.
            StoreError: it can not be read now.
        """
        path = self._cache.path(ref) if self._caches() else Path(self.root) / key
        if ref.sha256 in self._verified and not verify_again and path.is_file():
            return path
        try:
            if self._caches():
                path = self._cache.get(ref) or self._cache.put(
                    ref, lambda target: self._download(key, ref, target)
                )
            elif not is_whole(path, ref):
                raise _damaged_file(key, ref, path)
        except FileNotFoundError as error:
            raise MissingError(explain("not in the store", got=f"{self.root}/{key}")) from error
        except OSError as error:
            raise system_failure("can not read", key, error) from error
        self._verified.add(ref.sha256)
        return path

    def versions(self, name: str) -> builtins.list[str]:
        """Versions published under exactly this name, sorted; their manifests are not read."""
        check_name(name)
        folder = f"manifests/{name}/"
        files = [stat.key.removeprefix(folder) for stat in self._backend.scan(folder)]
        own = [file for file in files if file.endswith(".json") and "/" not in file]
        return sorted(file.removesuffix(".json") for file in own)

    def list(self, name_prefix: str = "") -> builtins.list[Handle]:
        """Handles of all published versions whose name begins with `name_prefix`."""
        return [self.handle_of(manifest) for manifest in self.manifests(name_prefix)]

    def manifests(
        self, name_prefix: str = "", *, skip_damaged: bool = False
    ) -> builtins.list[Manifest]:
        """Manifests of all published versions whose name begins with `name_prefix`.

        Args:
            name_prefix: `a/` for all names below `a`.
            skip_damaged: leave damaged ones out, each with a warning in the log.

        Raises:
            CorruptionError: a manifest is damaged.
        """
        found = self.survey(name_prefix)
        if found.damaged and not skip_damaged:
            first, *more = found.damaged.values()
            raise CorruptionError(first + (f" ({len(more)} more are damaged)" if more else ""))
        for key, why in found.damaged.items():
            if key not in self._told_damaged:
                self._told_damaged.add(key)
                logger.warning("left out: %s", why)
        return found.manifests

    def survey(self, name_prefix: str = "") -> Survey:
        """All that stands under names that begin with `name_prefix`, damaged manifests apart.

        Raises:
            ConfigError: no name begins like that.
        """
        if name_prefix:
            check_name(name_prefix.removesuffix("/"), what="beginning of a name")
        keys = [stat.key for stat in self._backend.scan(f"manifests/{name_prefix}")]
        keys = [key for key in keys if key.endswith(".json")]
        manifests, damaged = [], {}
        for key, found in zip(keys, _in_parallel(self._read_or_why, keys), strict=True):
            if isinstance(found, Manifest):
                manifests.append(found)
            elif found is not None:
                damaged[key] = str(found)
        return Survey(manifests, damaged)

    def quarantine(self, key: str) -> bool:
        """Move a damaged manifest out of the readers' sight; its bytes stay. False: it is whole.

        Files that only it lists are no longer kept from `gc`.
        """
        with self.lease("quarantine", ttl_s=QUARANTINE_TTL_S, owner=f"pid {os.getpid()}"):
            # Another may have moved it, and a run published the version anew.
            if not isinstance(self._read_or_why(key), CorruptionError):
                return False
            data = self.bytes_as_stored(key)
            name = f"{key.removeprefix('manifests/')}.{hashlib.sha256(data).hexdigest()[:12]}"
            self._backend.create(f"manifests-damaged/{name}", data)
            self._backend.delete(key)
        return True

    def bytes_as_stored(self, key: str) -> bytes:
        """All bytes of `key`, also where they do not fit the bucket's own checksum.

        Raises:
            MissingError: `key` is not in the store.
        """
        # A download in blocks compares sizes only.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            self._backend.download(key, copy)
            return copy.read_bytes()

    def pointer(self, name: str) -> Handle | None:
        """Where the named pointer (`LATEST`-like) leads, None where it was never set."""
        found = self._read_pointer(name)
        return None if found is None else found[0]

    def swap_pointer(self, name: str, new: Handle, *, expected: Handle | None) -> None:
        """Lead the pointer to `new` if it leads to `expected` now.

        Raises:
            ConflictError: it leads elsewhere; nothing is changed.
        """
        check_name(name, what="pointer")
        body = {"name": new.name, "version": new.version, "digest": new.digest}
        data = seal({**body, "nonce": os.urandom(8).hex()})
        key = f"pointers/{name}.json"
        current = self._read_pointer(name)
        now = None if current is None else current[0]
        if _same(now, expected):
            crashpoint("before-pointer")
            if current is None:
                swapped = self._backend.create(key, data)
            else:
                swapped = self._backend.replace(key, data, tag=current[1].tag)
            crashpoint("after-pointer")
            if swapped:
                return
            now = self.pointer(name)
        raise ConflictError(
            explain(f"pointer {name} was moved by another writer", got=now, expected=expected)
        )

    def lease(self, name: str, *, ttl_s: float, owner: str, wait_s: float = 0.0) -> Lease:
        """The right to do the work `name`, renewed by a thread until the context ends.

        Args:
            name: what is leased.
            ttl_s: an owner that does not renew for so long counts as dead.
            owner: for people.
            wait_s: how long to wait for a live owner.

        Raises:
            LeaseError: a live owner keeps it.
        """
        if not ttl_s > 0:
            raise ConfigError(explain("a lease's time to live", got=ttl_s, expected="> 0 seconds"))
        return acquire(self._backend, name, ttl_s=ttl_s, owner=owner, wait_s=wait_s)

    def gc(
        self, *, keep: Iterable[Handle], dry_run: bool = True, min_age_s: float = MIN_AGE_S
    ) -> GarbageReport:
        """Name, and unless `dry_run` remove, what neither `keep` nor a pointer leads to.

        Args:
            keep: versions that stay; `store.list()` keeps all and sweeps orphans only.
            dry_run: only name.
            min_age_s: files younger than this stay, since their manifest may be on its way.
        """
        report = collect_garbage(
            self._backend,
            self.manifests(),
            [*keep, *self._pointed()],
            dry_run=dry_run,
            min_age_s=min_age_s,
        )
        if not dry_run:
            # They share the bytes of a local store's objects, which would stay on the disk.
            published = {manifest.digest for manifest in self.manifests()}
            self._cache.drop_trees(older_than_s=min_age_s, keep=published)
        return report

    def forget(self, handles: Iterable[Handle]) -> builtins.list[Handle]:
        """Remove the manifests of versions that no pointer leads to; `gc` then takes the files.

        Returns:
            The versions that are gone.
        """
        pointed = {(handle.name, handle.version) for handle in self._pointed()}
        gone = [handle for handle in handles if (handle.name, handle.version) not in pointed]
        for handle in gone:
            self._backend.delete(manifest_key(handle.name, handle.version))
        return gone

    def _pointed(self) -> builtins.list[Handle]:
        """Where all pointers lead."""
        keys = [stat.key for stat in self._backend.scan("pointers/")]
        names = [key[len("pointers/") : -len(".json")] for key in keys if key.endswith(".json")]
        return [handle for name in names if (handle := self.pointer(name)) is not None]

    def _caches(self) -> bool:
        return not self._backend.is_local

    def handle_of(self, manifest: Manifest) -> Handle:
        """The handle of a version whose manifest was read."""
        uri = f"{self.root}/{manifest_key(manifest.name, manifest.version)}"
        return Handle(name=manifest.name, version=manifest.version, uri=uri, digest=manifest.digest)

    def _settle_conflict(self, standing: Manifest, ours: Manifest, first_wins: bool) -> Handle:
        if first_wins:
            return self.handle_of(standing)
        raise ConflictError(
            explain(
                f"{ours.name}@{ours.version} is published with other content: digest",
                got=ours.digest,
                expected=standing.digest,
                remedy="choose another version",
            )
        )

    def _read_manifest(self, name: str, version: str) -> Manifest | None:
        return self._read_manifest_key(manifest_key(name, version))

    def _read_manifest_key(self, key: str) -> Manifest | None:
        try:
            return self._read_checked(key, lambda tagged: _parse(tagged, key))
        except MissingError:
            return None
        except CorruptionError as error:
            remedy = "`still store quarantine --yes` sets it aside"
            raise CorruptionError(f"{error}; {remedy}") from error

    def _read_or_why(self, key: str) -> Manifest | CorruptionError | None:
        try:
            return self._read_manifest_key(key)
        except CorruptionError as error:
            return error

    def _require_manifest(self, name: str, version: str) -> Manifest:
        check_name(name), check_version(version)
        manifest = self._read_manifest(name, version)
        if manifest is None:
            raise MissingError(explain(f"{name}@{version} is not in the store", got=self.root))
        return manifest

    def _read_pointer(self, name: str) -> tuple[Handle, Tagged] | None:
        check_name(name, what="pointer")
        key = f"pointers/{name}.json"

        def parse(tagged: Tagged) -> tuple[Handle, Tagged]:
            body = unseal(tagged.data, key)
            try:
                handle = Handle(
                    name=body["name"],
                    version=body["version"],
                    uri=f"{self.root}/{manifest_key(body['name'], body['version'])}",
                    digest=body["digest"],
                )
            except KeyError as error:
                raise CorruptionError(explain(f"{key} is no pointer: it lacks {error}")) from error
            return handle, tagged

        try:
            return self._read_checked(key, parse)
        except MissingError:
            return None

    def _read_checked(self, key: str, parse: Callable[[Tagged], Result]) -> Result:
        """Read and parse, once more where the bytes were damaged on the way."""
        for attempt in range(READS_OF_DAMAGED):
            # Outside: the back end has repeated a transfer that it can tell is damaged.
            tagged = self._backend.read(key)
            try:
                return parse(tagged)
            except CorruptionError:
                if self._backend.is_local or attempt + 1 == READS_OF_DAMAGED:
                    raise
        raise AssertionError("READS_OF_DAMAGED is at least 1")

    def _write_manifest(self, manifest: Manifest, *, over: Manifest | None) -> bool:
        """Whether it stands now: nothing, or `over`, stood in its place."""
        key, data = manifest_key(manifest.name, manifest.version), manifest.to_bytes()
        if over is None:
            return self._backend.create(key, data)
        try:
            standing = self._backend.read(key)
        except MissingError:  # forgotten meanwhile
            return self._backend.create(key, data)
        if _parse(standing, key).digest != over.digest:
            return False
        return self._backend.replace(key, data, tag=standing.tag)

    def _put_object(self, source: _Source) -> bool:
        """Write an object unless it stands; whether an old one may have stood in its place."""
        ref, content, state = source
        # A small remote object is written at once: asking first costs as much as the put.
        ask = self._backend.is_local or ref.size > SMALL_OBJECT
        found = self._backend.stat(ref.key) if ask else None
        # An old object is written again: a garbage collection that runs now may have doomed it.
        if found is not None and self._age_s(found) < REUSED_FOR_S and self._holds(source):
            return False
        self._backend.put(ref.key, content)
        if isinstance(content, Path) and _state(content) != state:
            raise StoreError(explain("the file changed while it was stored", got=str(content)))
        return found is not None or not ask

    def _heal_object(self, source: _Source) -> None:
        """Write an object of a standing version only where it is lost or damaged."""
        if not self._holds(source):
            self._put_object(source)

    def _holds(self, source: _Source) -> bool:
        return self._backend.holds(source.ref.key, source.content, source.ref.sha256)

    def _is_present(self, ref: ObjectRef) -> bool:
        found = self._backend.stat(ref.key)
        return found is not None and found.size == ref.size

    def _read_object(self, ref: ObjectRef) -> bytes:
        def check(tagged: Tagged) -> bytes:
            found = hashlib.sha256(tagged.data).hexdigest()
            if len(tagged.data) != ref.size or found != ref.sha256:
                raise _damaged(ref.key, ref, f"{len(tagged.data)} bytes, sha256 {found}")
            return tagged.data

        return self._read_checked(ref.key, check)

    def _object_path(self, ref: ObjectRef) -> Path:
        """The object in the cache, fetched and verified where it is not there."""
        try:
            return self._cache.get(ref) or self._cache.put(
                ref, lambda target: self._download(ref.key, ref, target)
            )
        except OSError as error:
            raise _cache_failure(error) from error

    def _download(self, key: str, ref: ObjectRef, target: Path) -> None:
        for attempt in range(READS_OF_DAMAGED):
            target.unlink(missing_ok=True)
            self._backend.download(key, target)
            if is_whole(target, ref):
                return
            if self._backend.is_local or attempt + 1 == READS_OF_DAMAGED:
                raise _damaged_file(key, ref, target)

    def _fetch_object(self, ref: ObjectRef, target: Path) -> None:
        if not self._caches():
            self._download(ref.key, ref, target)
            return
        try:
            os.link(self._object_path(ref), target)
        except FileNotFoundError:
            # Another process trimmed the cache in between.
            os.link(self._object_path(ref), target)

    def _arrow(self, handle: Handle) -> pa.Table:
        return decode_table(self.read_bytes(handle, TABLE_FILE), f"{handle.name}/{TABLE_FILE}")

    def _age_s(self, stat: Stat) -> float:
        """Seconds since `stat` was written; wall clocks that jump do not count."""
        if self._clock is None:
            self._clock = self._backend.now() - time.monotonic()
        return self._clock + time.monotonic() - stat.modified


def _in_parallel(call: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    if len(items) <= 1:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(CONCURRENT_REQUESTS, len(items))) as pool:
        return list(pool.map(call, items))


def _reopen(root: str, cache: Path | None, limit: int, retry: RetryPolicy | None) -> Store:
    return Store(root, cache=cache, cache_limit_bytes=limit, retry=retry)


def _open_backend(root: str, retry: RetryPolicy | None) -> Backend:
    if not root:
        raise ConfigError(
            explain("the store's root is empty", expected="a folder or s3://bucket/prefix")
        )
    if root.startswith("s3://"):
        from still_core.store.s3 import S3Backend

        return S3Backend(root, retry)
    if "://" in root:
        raise ConfigError(
            explain("unknown kind of store", got=root, expected="a folder or s3://bucket/prefix")
        )
    return LocalBackend(root)


def _default_cache(backend: Backend) -> Path:
    root = Path(backend.root)
    if backend.is_local and (not root.exists() or os.access(root, os.W_OK)):
        return root / ".cache"
    folder = os.environ.get("STILL_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "still"


def _parse(tagged: Tagged, key: str) -> Manifest:
    return parse_manifest(tagged.data, key, tagged.modified)


def _same(left: Handle | None, right: Handle | None) -> bool:
    if left is None or right is None:
        return left is right
    return (left.name, left.version, left.digest) == (right.name, right.version, right.digest)


def _measure(content: Path | bytes) -> _Source:
    if isinstance(content, bytes):
        digest = hashlib.sha256(content).hexdigest()
        return _Source(ObjectRef(sha256=digest, size=len(content)), content, None)
    if not stat_bits.S_ISREG(os.lstat(content).st_mode):
        raise DataError(explain("only regular files can be published", got=str(content)))
    state = _state(content)
    ref = ObjectRef(sha256=sha256_of(content), size=content.stat().st_size)
    return _Source(ref, content, state)


def _state(path: Path) -> tuple[int, int, int]:
    """Differs once the file was written to or replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _cache_failure(error: OSError) -> StoreError:
    what = f"can not keep files in the local cache ({error})"
    return StoreError(explain(what, remedy="free space there, or set STILL_CACHE"))


def _damaged_file(key: str, ref: ObjectRef, path: Path) -> CorruptionError:
    found = path.lstat()
    if not stat_bits.S_ISREG(found.st_mode):
        return _damaged(key, ref, "no regular file")
    return _damaged(key, ref, f"{found.st_size} bytes, sha256 {sha256_of(path)}")


def _damaged(key: str, ref: ObjectRef, got: str) -> CorruptionError:
    return CorruptionError(
        explain(
            f"{key} is damaged",
            got=got,
            expected=f"{ref.size} bytes, sha256 {ref.sha256}",
            remedy="remove it from the store and run again: what made it publishes it anew",
        )
    )


def _regular_files(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise DataError(explain("no such folder to publish", got=str(folder)))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        relpath = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _regular_files(Path(entry.path), f"{relpath}/")
        elif entry.is_file(follow_symlinks=False):
            yield relpath, Path(entry.path)
        else:
            raise DataError(explain("only regular files can be published", got=entry.path))
