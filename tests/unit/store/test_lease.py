"""Leases: one owner at a time, dead owners replaced, clocks never compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from still_core.errors import ConfigError, CorruptionError, LeaseError
from still_core.store import Store, lease
from still_core.store.document import seal, unseal
from still_core.store.lease import LeaseState, is_dead_here, this_process

KEY = "leases/work.json"


@pytest.fixture
def store(store_root: str, tmp_path: Path) -> Store:
    """An empty store with its own cache."""
    return Store(store_root, cache=tmp_path / "cache")


def state_of(store: Store) -> LeaseState:
    return LeaseState(**unseal(store.backend.read(KEY).data, KEY))


def plant(store: Store, **changes) -> None:
    """A lease left behind by a process on another machine."""
    state = LeaseState(
        owner="other", token="t", beat=3, ttl_s=0.6, process="other-machine/1/42/100"
    )
    store.backend.put(KEY, seal(asdict(replace(state, **changes))))


def test_a_live_owner_keeps_the_lease_beyond_its_time_to_live(store: Store) -> None:
    with store.lease("work", ttl_s=0.6, owner="first") as lease:
        time.sleep(1.5)
        assert lease.is_held()
        with pytest.raises(LeaseError, match="held by first"):
            store.lease("work", ttl_s=0.6, owner="second")
        lease.check()


def test_a_released_lease_is_taken_at_once(store: Store) -> None:
    with store.lease("work", ttl_s=60, owner="first"):
        pass
    started = time.monotonic()
    with store.lease("work", ttl_s=60, owner="second") as lease:
        assert lease.owner == "second"
    assert time.monotonic() - started < 5


def test_a_dead_owner_elsewhere_is_replaced_after_its_time_to_live(store: Store) -> None:
    plant(store)
    started = time.monotonic()
    with store.lease("work", ttl_s=5, owner="second"):
        waited = time.monotonic() - started
    assert 0.6 * 1.25 <= waited < 4


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_is_wrong_by_an_hour_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real = time.time
    with store.lease("work", ttl_s=0.6, owner="first"):
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        with pytest.raises(LeaseError):
            store.lease("work", ttl_s=0.6, owner="second")


def test_a_dead_owner_on_this_machine_is_replaced_at_once(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        process = f"{this_process().rsplit('/', 2)[0]}/{ended.pid}/1"
    plant(store, process=process, ttl_s=600.0)
    started = time.monotonic()
    with store.lease("work", ttl_s=5, owner="second"):
        assert time.monotonic() - started < 5


def test_this_process_lives_and_a_reused_pid_is_another() -> None:
    mine = this_process()
    assert not is_dead_here(mine)
    assert is_dead_here(mine.rsplit("/", 1)[0] + "/12345")
    assert not is_dead_here("another-boot/1/2/3")
    assert not is_dead_here("garbage")


def test_an_owner_whose_process_can_not_be_looked_at_is_not_called_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, machine = this_process(), lease._machine()
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    gone = f"{mine.rsplit('/', 2)[0]}/{ended.pid}/1"

    def hide(*_: object, **__: object) -> str:
        raise PermissionError

    with monkeypatch.context() as hidden:
        hidden.setattr(lease, "_machine", lambda: machine)
        hidden.setattr(Path, "read_text", hide)
        assert not is_dead_here(mine)
        assert is_dead_here(gone)


def test_a_document_that_is_no_lease_is_refused_by_name(store: Store) -> None:
    store.backend.put("leases/work.json", seal({"owner": "nobody"}))
    with pytest.raises(CorruptionError, match=r"leases/work\.json is no lease"):
        store.lease("work", ttl_s=5, owner="second")


def test_a_lease_can_be_waited_for(store: Store) -> None:
    first = store.lease("work", ttl_s=0.9, owner="first")
    threading.Timer(1.0, first.release).start()
    with store.lease("work", ttl_s=0.9, owner="second", wait_s=30) as second:
        assert second.is_held()


def test_of_many_newcomers_one_takes_over(store: Store) -> None:
    plant(store, released=True)
    winners, losers = [], []

    def compete(number: int) -> None:
        try:
            winners.append(store.lease("work", ttl_s=1.5, owner=str(number)))
        except LeaseError:
            losers.append(number)

    threads = [threading.Thread(target=compete, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(losers)) == (1, 7)
    winners[0].release()


def test_an_owner_that_was_replaced_notices(store: Store) -> None:
    lease = store.lease("work", ttl_s=0.6, owner="first")
    plant(store, owner="thief")
    deadline = time.monotonic() + 5
    while lease.is_held() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(LeaseError, match="is lost"):
        lease.check()
    lease.release()
    assert state_of(store).owner == "thief"


def test_an_owner_that_slept_through_its_time_to_live_does_not_hold_it(
    tmp_path: Path,
) -> None:
    script = (
        "import sys, time\nfrom still_core.store import Store\n"
        "lease = Store(sys.argv[1]).lease('work', ttl_s=0.5, owner='sleeper')\n"
        "print('held', flush=True)\nsys.stdin.readline()\nprint(lease.is_held(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as sleeper:
        assert sleeper.stdin
        assert sleeper.stdout
        assert sleeper.stdout.readline() == "held\n"
        os.kill(sleeper.pid, signal.SIGSTOP)
        with Store(tmp_path).lease("work", ttl_s=0.5, owner="second"):
            os.kill(sleeper.pid, signal.SIGCONT)
            time.sleep(0.5)
            sleeper.stdin.write("\n")
            sleeper.stdin.flush()
            assert sleeper.stdout.readline() == "False\n"


def test_a_time_to_live_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="time to live"):
        Store(tmp_path).lease("work", ttl_s=0, owner="o")
