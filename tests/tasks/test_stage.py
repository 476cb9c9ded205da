"""Stages: cached by identity, checked on a hit, computed once, shown on every run."""

from __future__ import annotations

import inspect
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect import flow, get_client
from pydantic import Field

from still_core.errors import (
    ConfigError,
    ConflictError,
    CorruptionError,
    DataError,
    RolloutError,
    StalledError,
    StoreError,
    TrainingError,
    VerifierError,
)
from still_core.heartbeat import StageState, State, read_heartbeats
from still_core.progress import Progress
from still_core.recipes.section import Section
from still_core.refine.recipe import RULES_VERSION
from still_core.store import Handle, Store
from still_core.store.lineage import ancestors, descendants
from still_core.train.job import TRAINING_VERSION
from still_core.verify.answer import VERIFIER_VERSION
from tasks import demonstrations, evaluate, explore, preferences, problems, train
from tasks.artifacts import Shown, markdown
from tasks.listening import listener
from tasks.planning import planning
from tasks.runlog import stage_log
from tasks.stage import Stage, may_pass, stage, stage_version, stall_limit

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]

BODIES: list[str] = []


class Doubling(Section):
    factor: int = Field(2, ge=1)


def show_number(store: Store, handle: Handle) -> Iterator[Shown]:
    yield markdown("number", store.read_bytes(handle, "number").decode(), "The number")


@stage(version="1", show=show_number)
def make_number(store: Store, version: str, *, doubling: Doubling, resources: int) -> Handle:
    """Publish a number."""
    BODIES.append("make")
    return store.publish("make-number", version, {"number": str(doubling.factor).encode()})


@stage(version="1")
def square_number(store: Store, version: str, *, number: Handle) -> Handle:
    """Publish its square."""
    BODIES.append("square")
    value = int(store.read_bytes(number, "number"))
    return store.publish("square-number", version, {"number": str(value**2).encode()})


@stage(version="1", retries=1)
def refuse(store: Store, version: str, *, number: int) -> Handle:
    """Fail as a user's mistake does."""
    BODIES.append("refuse")
    raise DataError("row 3 has no gold")


@flow
def numbers(store: str, factor: int = 2, resources: int = 1) -> Handle:
    number = make_number(store=store, doubling=Doubling(factor=factor), resources=resources)
    return square_number(store=store, number=number)


@pytest.fixture(autouse=True)
def no_bodies() -> None:
    BODIES.clear()


def test_a_second_run_takes_every_stage_from_the_store(tmp_path: Path) -> None:
    first = numbers(str(tmp_path))
    assert BODIES == ["make", "square"]
    with stage_log() as log:
        assert numbers(str(tmp_path)) == first
    assert BODIES == ["make", "square"]
    assert [run.cached for run in log] == [True, True]


def test_resources_are_no_part_of_identity_and_recipe_fields_are(tmp_path: Path) -> None:
    numbers(str(tmp_path))
    numbers(str(tmp_path), resources=8)
    assert BODIES == ["make", "square"]
    numbers(str(tmp_path), factor=3)
    assert BODIES == ["make", "square", "make", "square"]


def test_a_hit_needs_the_artefact_to_be_there(tmp_path: Path) -> None:
    handle = numbers(str(tmp_path))
    store = Store(str(tmp_path))
    for ref in store.manifest(handle).objects.values():
        for path in tmp_path.rglob(f"*{ref.sha256}*"):
            path.unlink()
    numbers(str(tmp_path))
    assert BODIES == ["make", "square", "square"]


def test_artefacts_show_on_the_cached_run_too(tmp_path: Path) -> None:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    def count() -> int:
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["number"]))
            )
        assert all(artifact.task_run_id for artifact in found)
        return len(found)

    before = count()
    numbers(str(tmp_path))
    numbers(str(tmp_path))
    assert count() == before + 2


def test_two_runs_at_once_compute_a_stage_once(tmp_path: Path) -> None:
    threads = [threading.Thread(target=numbers, args=(str(tmp_path),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(BODIES) == ["make", "square"]


def test_a_run_that_waits_for_another_one_s_stage_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def counts() -> None:
        count(store=str(tmp_path), to=1, run="r", label="M_1")

    def waiting() -> list[StageState]:
        states = read_heartbeats(store, "r")
        return [state for state in states if state.stage == "count M_1: waiting for other run"]

    monkeypatch.setattr("tasks.records.LOG_EVERY_S", 0.5)
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    store = Store(str(tmp_path))
    key = f"stages/count/{count.version_of({'to': 1, 'run': 'r'})}"
    lease = store.lease(key, ttl_s=0.6, owner="other run")
    run = threading.Thread(target=counts)
    run.start()
    deadline = time.monotonic() + 60
    while caplog.text.count("is held by other run") < 2 or not waiting():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (seen,) = waiting()
    assert (seen.unit, seen.total, seen.state) == ("s", None, State.RUNNING)
    assert 0 < seen.facts["held_s"] < 60
    assert "held for about" in caplog.text
    lease.release()
    run.join()
    assert [state.state for state in waiting()] == [State.ENDED]
    assert [handle.name for handle in store.list()] == ["count"]


def test_a_users_mistake_is_not_tried_twice(tmp_path: Path) -> None:
    @flow
    def refused() -> None:
        refuse(store=str(tmp_path), number=1)

    with pytest.raises(DataError, match="row 3 has no gold"):
        refused()
    assert BODIES == ["refuse"]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StoreError("the service is away"), True),
        (ConnectionResetError(), True),
        (StalledError("no progress"), True),
        (RolloutError("Ray does not start"), True),
        (VerifierError("no worker within 60 s"), True),
        (ConfigError("no such model"), False),
        (ConflictError("made by another job"), False),
        (CorruptionError("sha256 differs"), False),
        (TrainingError("failed, attempt 3"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    assert may_pass(error) is again


def test_a_new_version_of_what_a_stage_uses_is_another_key() -> None:
    inputs = {"number": 1}
    keys = {stage_version("1", uses, inputs) for uses in ((), ("a",), ("b",), ("a", "b"))}
    assert len(keys) == 4


def test_stages_hang_on_the_versions_of_what_judges_cleans_and_trains_for_them() -> None:
    modules = (demonstrations, evaluate, explore, preferences, problems, train)
    found = {name: one for m in modules for name, one in vars(m).items() if isinstance(one, Stage)}
    used = {
        "verifier_pool(": VERIFIER_VERSION,
        "import SftJob": TRAINING_VERSION,
        "import DpoJob": TRAINING_VERSION,
        "clean_recipe=": RULES_VERSION,
    }
    for name, one in found.items():
        source = inspect.getsource(inspect.unwrap(one))
        assert set(one.uses) == {v for mark, v in used.items() if mark in source}, name
    assert {version for one in found.values() for version in one.uses} == set(used.values())


@stage(version="1")
def count(store: Store, version: str, *, to: int, run: str) -> Handle:
    """Tell of each number."""
    tell = listener(store, run)
    for number in range(1, to + 1):
        tell(Progress(stage="count", done=number, total=to, unit="numbers"))
    return store.publish("count", version, {"number": str(to).encode()})


def test_the_same_stage_for_two_models_has_two_heartbeats(tmp_path: Path) -> None:
    @flow
    def counts() -> None:
        for to in (1, 2):
            count(store=str(tmp_path), to=to, run="r", label=f"M_{to}")

    counts()
    told = {state.stage: state.total for state in read_heartbeats(Store(str(tmp_path)), "r")}
    assert told == {"count M_1: count": 1, "count M_2: count": 2}


def test_planning_runs_nothing_and_says_what_is_cached(tmp_path: Path) -> None:
    with planning() as plan:
        numbers.fn(str(tmp_path))
    assert BODIES == []
    assert [(s.name, s.cached) for s in plan] == [("make-number", False), ("square-number", False)]
    numbers(str(tmp_path))
    with planning() as plan:
        numbers.fn(str(tmp_path))
    assert [s.cached for s in plan] == [True, True]


def test_what_a_stage_publishes_leads_back_to_what_it_read(tmp_path: Path) -> None:
    square = numbers(str(tmp_path))
    store = Store(str(tmp_path))
    (number,) = store.list("make-number")
    assert [m.name for m in ancestors(store, square)] == ["make-number"]
    assert [m.name for m in descendants(store, number)] == ["square-number"]
    assert ancestors(store, number) == []


@stage(version="1", retries=0)
def stand_still(store: Store, version: str) -> Handle:
    """Wait for a child that does not end."""
    subprocess.run(["sleep", "600"], check=True)
    raise AssertionError("never reached")


def test_a_stage_that_stands_still_is_ended_with_its_cause(tmp_path: Path) -> None:
    @flow
    def stuck() -> None:
        with stall_limit(0.5):
            stand_still(store=str(tmp_path))

    with pytest.raises(StalledError, match=r"stage stand-still made no progress for 0.5 s"):
        stuck()
    assert stuck_children() == []


def stuck_children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.name() == "sleep"]
