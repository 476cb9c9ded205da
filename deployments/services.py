"""Servers, worker and deployments for a person who wants to look: `still up`, `still down`.

State is one JSON file under `.still/services/`: what was started, as (name, pid, start time).
`down` ends exactly those processes, and none that took over a pid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from deployments.s3_server import DEVELOPMENT, remove_sockets, sockets_of, start_server
from still_core.errors import ConfigError, explain

START_DEADLINE_S = 180.0
STOP_DEADLINE_S = 15.0
WORK_POOL = "still"
PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One process that `still up` started."""

    name: str
    pid: int
    started_at: float
    """Creation time, seconds since the epoch: tells the process from a later one of its pid."""


class Started(NamedTuple):
    """Where what was started is reached."""

    address: str
    """Of the UI."""
    client: dict[str, str]
    """What a client of the S3 server needs in its environment; empty where none was started."""


def start_services(
    folder: Path, *, port: int, store: str, s3_data: Path | None = None, s3_port: int = 0
) -> Started:
    """Start server and worker, and register the deployments.

    Args:
        folder: what runs is on record there, beside the logs.
        port: of the Prefect server.
        store: the deployments' default.
        s3_data: start an S3 server too, with its data here; the worker's runs can use it.
        s3_port: of the S3 server; 0 takes a free one.

    Raises:
        ConfigError: services run already, a port is taken, or a service does not come up.
    """
    running = [s.name for s in read_services(folder) if is_alive(s)]
    if running:
        raise ConfigError(
            explain(
                f"{', '.join(running)} already up", remedy="open the UI, or run 'still down' first"
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_UI_URL": address,
        "STILL_STORE": store,
    }
    _refuse_taken_port(port, "--port")
    if s3_data is not None:
        _refuse_taken_port(s3_port, "--s3-port")
    _hear_interrupts()
    services: list[Service] = []
    client: dict[str, str] = {}
    server = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    worker = ["prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
    try:
        if s3_data is not None:
            process, endpoint = start_server(
                s3_data, DEVELOPMENT, log=folder / "s3.log", port=s3_port
            )
            _record("s3", process.pid, folder, services)
            client = DEVELOPMENT.environment(endpoint)
            # A session token or another endpoint of the user's would win over these.
            environment = {k: v for k, v in environment.items() if not k.startswith("AWS_")}
            environment |= client
        _record("server", _spawn("server", server, folder, environment), folder, services)
        _await_server(address, services[-1], folder)
        deploy(environment)
        _record("worker", _spawn("worker", worker, folder, environment), folder, services)
    except ConfigError:
        stop_services(folder)
        raise
    return Started(address, client)


def deploy(environment: dict[str, str]) -> None:
    """Make the work pool and register every deployment of `deployments/prefect.yaml`."""
    for arguments in (
        ["work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"],
        [
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            str(Path(__file__).with_name("prefect.yaml")),
        ],
    ):
        # Entry points are relative to the project; a deployed run works from there.
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
            raise ConfigError(explain(f"prefect {' '.join(arguments[:2])} failed: {said[-1]}"))


def stop_services(folder: Path) -> list[str]:
    """End what `start_services` started, workers first; returns the names of what was ended."""
    ended = []
    for service in reversed(read_services(folder)):
        if is_alive(service):
            sockets = sockets_of(service.pid) if service.name == "s3" else []
            _end_tree(service.pid)
            remove_sockets(sockets)
            ended.append(service.name)
    (folder / "services.json").unlink(missing_ok=True)
    return ended


def read_services(folder: Path) -> list[Service]:
    """The processes on record."""
    path = folder / "services.json"
    if not path.is_file():
        return []
    return [Service(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_services(folder: Path, services: list[Service]) -> None:
    """Put the processes on record."""
    text = json.dumps([asdict(service) for service in services], indent=1)
    (folder / "services.json").write_text(text, encoding="utf-8")


def is_alive(service: Service) -> bool:
    """Whether that very process still runs."""
    try:
        process = psutil.Process(service.pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and abs(process.create_time() - service.started_at) < 1.0
        )
    except psutil.NoSuchProcess:
        return False


def _record(name: str, pid: int, folder: Path, services: list[Service]) -> None:
    started_at = psutil.Process(pid).create_time()
    services.append(Service(name=name, pid=pid, started_at=started_at))
    write_services(folder, services)


def _spawn(name: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> int:
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid


def _hear_interrupts() -> None:
    """A shell's background job ignores SIGINT, which its children inherit: workers end by one."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _refuse_taken_port(port: int, option: str) -> None:
    if any(
        c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
        for c in psutil.net_connections("tcp")
    ):
        raise ConfigError(
            explain(f"port {port} is taken", remedy=f"stop what listens there, or say {option}")
        )


def _await_server(address: str, server: Service, folder: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if not is_alive(server):
            break
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise ConfigError(
        explain("the Prefect server did not come up", remedy=f"read {folder / 'server.log'}")
    )


def _end_tree(pid: int) -> None:
    try:
        parent = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    tree = [parent, *parent.children(recursive=True)]
    for process in tree:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(tree, timeout=STOP_DEADLINE_S)
    for process in left:
        _signal(process, signal.SIGKILL)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
