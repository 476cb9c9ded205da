"""kill -9 of the whole process tree, then the same command: nothing done twice, the same data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from still_core.store import Store
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration]

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


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    import psutil

    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=10)
    process.wait(timeout=10)


def wait_for(store: Path, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if store.exists() and Store(str(store)).list(name):
            return
        assert process.poll() is None, log.read_text("utf-8", errors="replace")[-3000:]
        time.sleep(0.2)
    raise AssertionError(f"{name} was not made in time")


def digests(store: str, names: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    """Version and content of what was made; a checkpoint's version also names its attempt."""
    opened = Store(store)
    return {
        name: sorted(
            (h.version.rpartition("-")[0] if h.version.startswith("step-") else h.version, h.digest)
            for h in opened.list(name)
        )
        for name in names
    }


def test_a_killed_run_goes_on_and_ends_with_the_same_data(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    store, reports, log = tmp_path / "store", tmp_path / "reports", tmp_path / "log"
    for reached in ("build-d0", "explore-problems"):
        process = start(finished_run, store, reports, log)
        wait_for(store, reached, process, log)
        kill_tree(process)
    process = start(finished_run, store, reports, log)
    assert process.wait(timeout=400) == 0, log.read_text("utf-8", errors="replace")[-3000:]
    report = json.loads((reports / "latest" / "report.json").read_text("utf-8"))
    cached = {stage["name"] for stage in report["stages"] if stage["cached"]}
    assert {"collect-problems", "build-d0"} <= cached
    assert digests(str(store), DATA) == digests(finished_run.store, DATA)
    undisturbed = digests(finished_run.store, LATER)
    for name, made in digests(str(store), LATER).items():
        assert set(made) <= set(undisturbed[name]), name


@pytest.fixture(autouse=True)
def own_prefect_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in [n for n in os.environ if n.startswith("PREFECT_API")]:
        monkeypatch.delenv(name)
