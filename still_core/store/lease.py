"""A lease: the right to do one piece of work, which a dead owner loses and a live one keeps.

No clock is compared with another machine's. The owner writes a new beat every third of the time
to live; a newcomer watches the beat with its own monotonic clock and takes over only what has not
moved for the whole time to live plus a margin. On the owner's machine a dead process is seen at
once. Every step is a conditional put, so of two newcomers one wins.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from still_core.errors import CorruptionError, LeaseError, MissingError, StoreError, explain
from still_core.store.backend import Backend
from still_core.store.crashpoint import crashpoint
from still_core.store.document import seal, unseal
from still_core.store.names import check_name

log = logging.getLogger(__name__)

MARGIN = 0.25
"""Share of the time to live that a newcomer waits on top, for slow stores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseState:
    """What stands in the store."""

    owner: str
    token: str
    """Unique to one acquisition."""
    beat: int
    """Grows with each renewal."""
    ttl_s: float
    process: str
    """Machine, pid namespace, pid and start time of the owner."""
    released: bool = False


class Lease:
    """A lease that is held; renewed by a thread until released or lost."""

    def __init__(self, backend: Backend, key: str, state: LeaseState, tag: str) -> None:
        self._backend, self._key, self._state, self._tag = backend, key, state, tag
        self._renewed_at = time.monotonic()
        self._stop = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(
            target=self._renew_forever, name=f"lease {key}", daemon=True
        )
        self._thread.start()

    @property
    def owner(self) -> str:
        """Who holds it."""
        return self._state.owner

    def is_held(self) -> bool:
        """Whether the work is still ours: not lost, not released, renewed in time."""
        fresh = time.monotonic() - self._renewed_at < self._state.ttl_s
        return not self._lost and not self._stop.is_set() and fresh

    def check(self) -> None:
        """Raise LeaseError unless `is_held`; call it before publishing what the lease protects."""
        if not self.is_held():
            reason = self._lost or "it was not renewed in time"
            raise LeaseError(explain(f"lease {self._key} of {self.owner} is lost ({reason})"))

    def release(self) -> None:
        """Give it up; the next one gets it at once. Calling it again does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        crashpoint("before-release")
        if not self._lost:
            free = replace(self._state, beat=self._state.beat + 1, released=True)
            try:
                self._backend.replace(self._key, seal(asdict(free)), tag=self._tag)
            except StoreError as error:
                # The work is done and published: the lease ends by itself after its time to live.
                log.warning("%s was not released: %s", self._key, error)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _renew_forever(self) -> None:
        while not self._stop.wait(self._state.ttl_s / 3):
            started = time.monotonic()
            crashpoint("before-renew")
            try:
                self._renew()
            except StoreError as error:
                # One failed beat is no loss: the lease ends when the time to live is over.
                self._lost = str(error) if self._is_over(started) else ""
            else:
                self._renewed_at = started
            if self._lost:
                return

    def _is_over(self, now: float) -> bool:
        return now - self._renewed_at >= self._state.ttl_s

    def _renew(self) -> None:
        beaten = replace(self._state, beat=self._state.beat + 1)
        data = seal(asdict(beaten))
        if not self._backend.replace(self._key, data, tag=self._tag):
            self._lost = "another owner took it over"
            return
        current = self._backend.read(self._key)
        if current.data != data:
            self._lost = "another owner took it over"
            return
        self._state, self._tag = beaten, current.tag


def acquire(
    backend: Backend,
    name: str,
    *,
    ttl_s: float,
    owner: str,
    wait_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the lease, waiting long enough to tell a dead owner from a live one.

    Args:
        backend: where the lease lives.
        name: what is leased.
        ttl_s: seconds after which an owner that does not renew counts as dead, > 0.
        owner: for people: who holds it.
        wait_s: how long to wait for a live owner to finish.
        sleep: replaced in tests.

    Raises:
        LeaseError: a live owner keeps it.
    """
    key = f"leases/{check_name(name)}.json"
    mine = LeaseState(
        owner=owner, token=uuid.uuid4().hex, beat=0, ttl_s=ttl_s, process=this_process()
    )
    data = seal(asdict(mine))
    started = time.monotonic()
    while True:
        if _take(backend, key, data, started=started, wait_s=wait_s, sleep=sleep):
            crashpoint("after-lease")
            current = backend.read(key)
            if current.data == data:
                return Lease(backend, key, mine, current.tag)


def _take(
    backend: Backend,
    key: str,
    data: bytes,
    *,
    started: float,
    wait_s: float,
    sleep: Callable[[float], None],
) -> bool:
    """One round: create the lease, or watch the present owner until it moves, ends or is dead."""
    if backend.create(key, data):
        return True
    try:
        current = backend.read(key)
    except MissingError:
        return False
    state = _parse(current.data, key)
    seen_at = time.monotonic()
    while not (state.released or is_dead_here(state.process)):
        patience = state.ttl_s * (1 + MARGIN)
        if time.monotonic() - seen_at >= patience:
            break
        sleep(min(patience / 20, 1.0))
        latest = backend.read(key)
        if latest.tag != current.tag:
            current, state = latest, _parse(latest.data, key)
            seen_at = time.monotonic()
            if not state.released and time.monotonic() - started >= wait_s:
                holder = f"{state.owner} ({state.process})"
                raise LeaseError(explain(f"{key} is held by {holder}", remedy="wait, or end it"))
    return backend.replace(key, data, tag=current.tag)


def _parse(data: bytes, key: str) -> LeaseState:
    body = unseal(data, key)
    try:
        return LeaseState(**{name: body[name] for name in LeaseState.__dataclass_fields__})
    except KeyError as error:
        raise CorruptionError(explain(f"{key} is no lease: it lacks {error}")) from error


def this_process() -> str:
    """`boot id/pid namespace/pid/start time`: tells one process on one machine from all others."""
    return f"{_machine()}/{os.getpid()}/{_start_time(os.getpid()) or ''}"


def is_dead_here(process: str) -> bool:
    """Whether `process` ran on this machine and no longer does; False where it can not be known."""
    machine, _, rest = process.rpartition("/")[0].rpartition("/")
    start = process.rpartition("/")[2]
    if machine != _machine() or not rest.isdigit() or not start:
        return False
    found = _start_time(int(rest))
    return found is not None and found != start


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"unknown-{uuid.getnode():x}"
    return f"{boot}/{re.sub('[^0-9]', '', namespace)}"


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot at which `pid` started; empty where it has ended, None if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        # `hidepid` hides other users' processes, and this process may be out of file handles.
        return None if _is_running(pid) else ""
    fields = text.rpartition(")")[2].split()
    # A zombie has ended: it holds no lease.
    return "" if fields[0] in ("Z", "X") else fields[19]
