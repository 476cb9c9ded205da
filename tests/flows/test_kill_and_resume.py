"""A run that is cut off, by `kill -9` of all its processes or by SIGTERM, and the same command
again: nothing done twice, the same data, no process left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from still_core.store import Handle, Store
from tests.flows.conftest import FinishedRun

# Three starts of the whole program, beside whatever else the machine does.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1_500)]

STAGE_S, END_S, RUN_S = 480, 15, 800
DATA = (
    "collect-problems",
    "distil-demonstrations",
    "complete-solutions",
    "build-d0",
    "train-model",
)
LATER = ("explore-problems", "score-candidates", "refine-demonstrations", "evaluate-model")


def start(run: FinishedRun, store: Path, reports: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "deployments.cli", "run", "--recipe", str(run.recipe_file)),
        *("--store", str(store), "--reports", str(reports)),
    ]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def family(process: subprocess.Popen[bytes]) -> set[psutil.Process]:
    """All living processes of a run: what descends from it, and its session, whoever the parent."""
    found: set[psutil.Process] = set()
    try:
        root = psutil.Process(process.pid)
        found = {root, *root.children(recursive=True)}
    except psutil.NoSuchProcess:
        pass  # it has ended; the session may live on
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == process.pid:
                found.add(one)
        except ProcessLookupError:
            continue  # ended while we looked
    return {one for one in found if is_alive(one)}


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to every process of the run, also to one that starts meanwhile."""
    seen: set[psutil.Process] = set()
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        seen |= family(process)
        alive = [one for one in seen if is_alive(one)]
        if not alive:
            break
        for one in alive:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)
    process.wait(timeout=END_S)
    assert not [one for one in seen if is_alive(one)]


def terminate(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the one process that a user started: it ends all others, and soon."""
    below = family(process)
    assert len(below) > 3, "Prefect's server and Ray belong to the run"
    process.terminate()
    assert process.wait(timeout=END_S) == 128 + signal.SIGTERM
    assert not [one for one in below | family(process) if is_alive(one)]


def stored(store: Path | str, name: str) -> list[Handle]:
    return [handle for handle in Store(str(store)).list(name) if handle.name == name]


def wait_for(
    store: Path, name: str, count: int, process: subprocess.Popen[bytes], log: Path
) -> None:
    """Until so many stages of that name are recorded: their artefact stands a moment earlier."""
    deadline = time.monotonic() + STAGE_S
    while time.monotonic() < deadline:
        records = Store(str(store)).backend.scan(f"records/{name}/") if store.exists() else ()
        if len(list(records)) >= count:
            return
        assert process.poll() is None, tail(log)
        time.sleep(0.2)
    kill_all(process)
    raise AssertionError(f"{name} was not made in {STAGE_S} s: {tail(log)}")


def tail(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-3000:]


def digests(store: Path | str, names: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    return {name: sorted((h.version, h.digest) for h in stored(store, name)) for name in names}


def test_a_run_that_is_cut_off_goes_on_and_ends_with_the_same_data(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    store, reports, log = tmp_path / "store", tmp_path / "reports", tmp_path / "log"
    # While M_1 is trained, and while it answers the benchmarks.
    for (reached, count), cut_off in ((("build-d0", 1), kill_all), (("train-model", 2), terminate)):
        process = start(finished_run, store, reports, log)
        wait_for(store, reached, count, process, log)
        cut_off(process)
    assert "\nstill: interrupted; the same command goes on from here\n" in tail(log)
    process = start(finished_run, store, reports, log)
    try:
        assert process.wait(timeout=RUN_S) == 0, tail(log)
    finally:
        kill_all(process)
    report = json.loads((reports / "latest" / "report.json").read_text("utf-8"))
    cached = {stage["name"] for stage in report["stages"] if stage["cached"]}
    assert {"collect-problems", "build-d0", "train-model M_1"} <= cached
    assert digests(store, DATA) == digests(finished_run.store, DATA)
    undisturbed = digests(finished_run.store, LATER)
    for name, made in digests(store, LATER).items():
        assert set(made) <= set(undisturbed[name]), name


@pytest.fixture(autouse=True)
def own_prefect_home(monkeypatch: pytest.MonkeyPatch, prefect_home: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(prefect_home))
    for name in [n for n in os.environ if n.startswith("PREFECT_API")]:
        monkeypatch.delenv(name)
