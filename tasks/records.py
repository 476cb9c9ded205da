"""How Prefect's cache sits on the store: its records, its keys and its locks.

Records are small: Prefect's metadata and one handle. They live in the store itself, so every
machine that sees the store sees the cache. They count only while the artefact is there.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.logging import get_logger, get_run_logger

from still_core.errors import LeaseError, MissingError, StoreError
from still_core.heartbeat import Heartbeat
from still_core.identity import digest
from still_core.progress import Progress
from still_core.store import Handle, Lease, Store
from still_core.store.document import unseal

LOCK_TTL_S = 30.0
"""A stage's lock is renewed while its process lives, and free this long after the process died."""

POLL_S = 0.5
LOG_EVERY_S = 60.0


class StageKey(CachePolicy):
    """The key that a stage computed for this call."""

    def __init__(self, key: str, **configured: Any) -> None:
        super().__init__(**configured)
        self.key = key

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **_: Any,
    ) -> str:
        """`stage/version-hash`."""
        return self.key


class StageRecords(WritableFileSystem):
    """Prefect results as records in the store. A record without its artefact is no hit."""

    _block_type_name = "Still stage records"
    _block_type_slug = "still-stage-records"

    root: str

    @classmethod
    def at(cls, root: str) -> StageRecords:
        """The block for this store, registered with the Prefect server at hand."""
        return _registered(root, os.environ.get("PREFECT_API_URL", ""))

    # Prefect calls both plainly, with _sync, from synchronous tasks; the base declares coroutines.
    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """The record, if the artefact that it names is still there.

        Raises:
            MissingError: no record, or its artefact is gone; Prefect then runs the stage.
        """
        store = Store(self.root)
        content = store.backend.read(_key(path)).data
        handle = Handle(**json.loads(json.loads(content)["result"]))
        if not store.exists(handle):
            raise MissingError(f"the artefact {handle.name} {handle.version} is gone")
        return content

    def write_path(  # type: ignore[override]
        self, path: str, content: bytes, _sync: bool = True
    ) -> None:
        """Write the record; the artefact it names is already published."""
        Store(self.root).backend.put(_key(path), content)


@functools.lru_cache(maxsize=16)
def _registered(root: str, _api: str) -> StageRecords:
    block = StageRecords(root=root)
    block.save(f"still-records-{digest(root)}", overwrite=True)
    return block


def _key(path: str) -> str:
    return f"records/{path.lstrip('/')}"


class StageLocks:
    """Prefect's transaction locks as leases in the store: one run computes, others wait."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._leases: dict[str, tuple[str, Lease]] = {}

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the stage's lease, waiting while a live run holds it.

        Who holds it stands in the log, once a minute, and in the heartbeat of the run that waits.
        """
        if self.is_lock_holder(key, holder):
            return True
        deadline = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        with _Wait(Store(self._root), key) as wait:
            while True:
                try:
                    self._leases[key] = (holder, self._take(key, holder))
                    return True
                except LeaseError as held:
                    wait.tell(held)
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_S)

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """As `acquire_lock`; stages are synchronous, so nothing else waits on this loop."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lease back."""
        if not self.is_lock_holder(key, holder):
            raise ValueError(f"{holder} does not hold the lock of {key}")
        _, lease = self._leases.pop(key)
        lease.release()

    def is_locked(self, key: str) -> bool:
        """Whether this run holds the lease."""
        return key in self._leases

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` holds the lease."""
        return key in self._leases and self._leases[key][0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lease."""
        if not self.acquire_lock(key, "waiting", acquire_timeout=timeout):
            return False
        self.release_lock(key, "waiting")
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As `wait_for_lock`."""
        return self.wait_for_lock(key, timeout)

    def _take(self, key: str, holder: str) -> Lease:
        owner = f"{socket.gethostname()}:{os.getpid()}:{digest(holder)}"
        return Store(self._root).lease(f"stages/{key}", ttl_s=LOCK_TTL_S, owner=owner)


class _Wait:
    """Tells that this run waits for a stage that another one holds; a context manager."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._began = time.monotonic()
        self._logged: float | None = None
        self._heartbeat: Heartbeat | None = None

    def __enter__(self) -> _Wait:
        return self

    def __exit__(self, *_: object) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()

    def tell(self, held: LeaseError) -> None:
        """The lease is still held: into the log at first and every minute, and to who watches."""
        now = time.monotonic()
        owner, held_s = self._holder()
        context = TaskRunContext.get()
        if self._logged is None or now - self._logged >= LOG_EVERY_S:
            self._logged = now
            log = get_run_logger() if context else get_logger(__name__)
            waited_s = now - self._began
            log.warning("%s; held for about %.0f s, waited for %.0f s", held, held_s, waited_s)
        run = context.parameters.get("inputs", {}).get("run") if context else None
        if context is None or run is None:
            return
        if self._heartbeat is None:
            self._heartbeat = Heartbeat(self._store, run)
        self._heartbeat(
            Progress(
                stage=f"{context.task_run.name}: waiting for {owner}",
                done=round(now - self._began),
                total=None,
                unit="s",
                facts={"held_s": held_s},
            )
        )

    def _holder(self) -> tuple[str, float]:
        """Who holds the lease, and for about how many seconds: a beat is a third of its life."""
        key = f"leases/stages/{self._key}.json"
        try:
            lease = unseal(self._store.backend.read(key).data, key)
        except StoreError:
            return "another run", 0.0
        return str(lease["owner"]), lease["beat"] * lease["ttl_s"] / 3
