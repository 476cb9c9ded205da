"""What Ray workers get to see."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from still_core.rollout.cluster import _hide_secrets, worker_environment

SECRETS = (
    "AWS_BEARER_TOKEN_BEDROCK",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "DATABASE_URL",
    "DB_PASSWORD",
    "GITHUB_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_API_URL",
    "PREFECT_SERVER_API_AUTH_STRING",
    "SENTRY_DSN",
    "WANDB_API_KEY",
)
HARMLESS = (
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "NCCL_IB_PKEY",
    "PYTHONPATH",
    "RAY_AUTH_MODE",
    "RAY_TLS_SERVER_KEY",
    "STILL_CACHE",
)


@pytest.fixture
def environment() -> Iterator[None]:
    """Puts the environment back as it was."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
def test_secrets_are_out_of_the_environment_while_ray_starts() -> None:
    os.environ.update(dict.fromkeys((*SECRETS, *HARMLESS), "set"))
    hidden = _hide_secrets()
    assert set(SECRETS) <= set(hidden)
    assert not set(hidden) & {*HARMLESS, *os.environ}


def names_botocore_reads() -> set[str]:
    import botocore

    sources = Path(botocore.__file__).parent.glob("*.py")
    found = (re.findall(r"\bAWS_[A-Z_]+[A-Z]\b", path.read_text()) for path in sources)
    return {name for names in found for name in names}


@pytest.mark.usefixtures("environment")
def test_every_name_that_the_stores_client_reads_stays_with_the_workers() -> None:
    read = {*names_botocore_reads(), "FSSPEC_S3_KEY", "FSSPEC_S3_SECRET", "FSSPEC_S3_TOKEN"}
    assert {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE"} <= read
    os.environ.update(dict.fromkeys(read, "set"))
    assert not set(_hide_secrets()) & read


class RoleServer(BaseHTTPRequestHandler):
    """Hands out a role's keys as the agent beside a pod does, to who brings the pod's token."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "token of the pod"
        keys = {"AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t"}
        body = json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.mark.usefixtures("environment")
def test_the_role_of_a_pod_is_found_in_what_workers_inherit(tmp_path: Path) -> None:
    from botocore.session import Session

    server = HTTPServer(("127.0.0.1", 0), RoleServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("token of the pod")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{server.server_port}/"
    os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(tmp_path / "token")
    # Else the keys of whoever runs the tests are found first.
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.environ["AWS_CONFIG_FILE"] = str(tmp_path / "no")
    _hide_secrets()
    found = Session().get_credentials()
    server.shutdown()
    server.server_close()
    assert found is not None
    assert found.access_key == "role"


def test_what_ray_logs_of_an_actor_says_where_the_store_is_and_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for the store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "for the endpoint")
    monkeypatch.setenv("WANDB_API_KEY", "not theirs")
    given = worker_environment({"OMP_NUM_THREADS": "1"})
    assert given["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert given["OMP_NUM_THREADS"] == "1"
    assert not {"AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "WANDB_API_KEY"} & set(given)
