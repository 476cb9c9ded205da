"""A faulty S3: steps end right or are refused in one line, and damage is always named."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from still_core.errors import CorruptionError, StoreError
from still_core.rollout.bank import RolloutBank
from still_core.store import RetryPolicy, Store
from still_core.store.s3 import PART_BYTES
from tests.faulty_s3 import FaultPlan, FaultyS3
from tests.fixtures.crash_campaign import make_rollout
from tests.fixtures.fault_campaign import IMPATIENT, TrustingStore, run_faults
from tests.fixtures.s3 import BUCKET, SECRET_KEY, S3Server

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A faulty proxy; clients of this test talk to it."""
    faulty = FaultyS3(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
    yield faulty
    faulty.close()


def test_runs_through_a_faulty_server_end_right_or_with_a_clear_message(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    campaign = run_faults(proxy, s3_root, tmp_path, range(1, 8))
    assert campaign.failures == []
    assert campaign.passed == campaign.run == 7
    # The faults were really met, of most kinds.
    assert len(campaign.met) >= 6


@pytest.mark.slow
def test_five_hundred_runs_through_a_faulty_server(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    campaign = run_faults(proxy, s3_root, tmp_path, range(500))
    assert campaign.failures == []


def test_a_reader_that_trusts_the_wire_is_caught(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    campaign = run_faults(
        proxy,
        s3_root,
        tmp_path,
        range(1, 9),
        kind=TrustingStore,
        faults=("flip_download", "truncate"),
    )
    assert any("gave other bytes" in failure for failure in campaign.failures)


def test_a_lost_reply_to_a_conditional_put_is_no_lost_race(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    store = Store(s3_root, cache=tmp_path, retry=RetryPolicy(base_s=0.01))
    proxy.plan = FaultPlan(rate=0.5, faults=("lost_reply",), seed=3)
    for number in range(5):
        handle = store.publish("x", str(number), {"f": b"%d" % number}, first_wins=False)
        store.swap_pointer(f"p{number}", handle, expected=None)
    assert proxy.plan.met["lost_reply"] >= 5
    assert store.pointer("p4") == handle


def test_bytes_that_are_damaged_in_the_store_itself_are_named(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    store = Store(s3_root, cache=tmp_path, retry=IMPATIENT)
    handle = store.publish("x", "1", {"f": b"hello"})
    ref = store.manifest(handle).objects["f"]
    store.backend.put(ref.key, b"jello")
    with pytest.raises(CorruptionError, match=ref.sha256):
        store.read_bytes(handle, "f")


@pytest.mark.parametrize(
    "refusal",
    [
        (403, "ExpiredToken"),
        (400, "ExpiredToken"),
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
    ],
)
def test_refused_credentials_fail_at_once_and_show_no_secret(
    proxy: FaultyS3, s3_root: str, tmp_path: Path, refusal: tuple[int, str]
) -> None:
    store = Store(s3_root, cache=tmp_path)
    proxy.plan = FaultPlan(refuse_with=refusal)
    with pytest.raises(StoreError, match=refusal[1]) as caught:
        store.publish("x", "1", {"f": b"hello"})
    assert proxy.plan.requests == 1
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


def test_wrong_and_missing_credentials_fail_at_once_and_show_no_secret(
    s3_server: S3Server, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-wrong")
    started = time.monotonic()
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Store(s3_root, cache=tmp_path).check_writable()
    assert "CANARY-wrong" not in "".join(traceback.format_exception(caught.value))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="Credential"):
        Store(s3_root, cache=tmp_path).check_writable()
    assert time.monotonic() - started < 10


def test_a_dead_endpoint_is_given_up_with_a_bounded_number_of_tries(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"gave up after 6 tries.*AWS_ENDPOINT_URL"):
        Store(f"s3://{BUCKET}/x", cache=tmp_path, retry=IMPATIENT).check_writable()


def test_a_throttled_store_recovers(proxy: FaultyS3, s3_root: str, tmp_path: Path) -> None:
    store = Store(s3_root, cache=tmp_path, retry=RetryPolicy(base_s=0.01))
    proxy.plan = FaultPlan(rate=0.5, faults=("throttle", "error", "reset"), seed=1)
    handles = [store.publish("x", str(n), {"f": b"%d" % n}) for n in range(5)]
    assert all(store.exists(handle) for handle in handles)
    assert proxy.plan.met["throttle"] > 0


def test_a_failed_completion_that_answers_200_is_no_success(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    proxy.plan = FaultPlan(rate=0.5, faults=("error_in_200",), seed=5)
    store = Store(s3_root, cache=tmp_path / "cache", retry=RetryPolicy(base_s=0.01))
    data = bytes(PART_BYTES + 1)
    for number in range(4):
        handle = store.publish("parts", str(number), {"f": data + bytes([number])})
        assert store.exists(handle)
    assert proxy.plan.met["error_in_200"] > 0


def test_a_stale_list_hides_and_never_invents(
    proxy: FaultyS3, s3_root: str, tmp_path: Path
) -> None:
    store = Store(s3_root, cache=tmp_path / "cache", retry=RetryPolicy(base_s=0.01))
    bank = RolloutBank(store)
    assert store.list() == []
    assert list(bank.scan()) == []
    handle = store.publish("x", "1", {"f": b"hello"})
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(0, 0))
    proxy.plan = FaultPlan(rate=1.0, faults=("stale_list",))
    assert store.list() == []
    assert store.find("x", "1") == handle
    assert list(RolloutBank(store).scan()) == []
    assert proxy.plan.met["stale_list"] >= 2
    proxy.plan = FaultPlan()
    assert store.list() == [handle]
    assert len(list(bank.scan())) == 1


def test_an_upload_in_parts_comes_back_whole(s3_root: str, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "w.safetensors").write_bytes(bytes(range(256)) * (40 * 4096))
    store = Store(s3_root, cache=tmp_path / "cache")
    handle = store.publish_dir("m", "1", source)
    fetched = store.fetch(handle) / "w.safetensors"
    assert fetched.read_bytes() == (source / "w.safetensors").read_bytes()
    assert store.gc(keep=store.list(), min_age_s=0).unfinished == ()
