"""Deployments: server, worker, `prefect deploy --all`, a run from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.services import is_alive, read_services, start_services, stop_services
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server and a worker of our own, ended afterwards."""
    from deployments.environment import prepare_environment

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in [n for n in os.environ if n.startswith("PREFECT_API")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    prepare_environment()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "services"
    try:
        yield start_services(folder, port=port, store=str(tmp_path / "store")), folder
    finally:
        stop_services(folder)


def test_a_deployed_run_started_from_outside_runs_to_completion_and_down_ends_what_up_started(
    finished_run: FinishedRun, services: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = services
    started = read_services(folder)
    assert [is_alive(service) for service in started] == [True, True]
    parameters = finished_run.recipe.model_dump_json()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "deployment", "run", "still-2/miniature", "--watch"),
            *("-p", f"recipe={parameters}"),
            *("-p", f'store="{finished_run.store}"', "-p", f'reports="{tmp_path / "reports"}"'),
        ],
        env={**os.environ, "PREFECT_API_URL": f"{address}/api"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "reports" / "latest" / "report.html").is_file()

    assert stop_services(folder) == ["worker", "server"]
    assert not any(is_alive(service) for service in started)
    assert stop_services(folder) == []
