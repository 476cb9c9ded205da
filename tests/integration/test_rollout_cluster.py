"""Ray as a run starts it, in a process of its own, and what its workers inherit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

START = """
import json, os, sys
from still_core.rollout.cluster import connect
connect(temp_dir=sys.argv[1])
import ray
seen = ray.get(ray.remote(lambda: sorted(os.environ)).options(num_cpus=0.1).remote())
print(json.dumps({"cpus": ray.cluster_resources()["CPU"], "seen": seen, "own": sorted(os.environ)}))
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


@pytest.mark.parametrize("address", ["", "local"])
def test_without_a_clusters_address_ray_starts_with_cpus_to_spare_and_no_secret_of_ours(
    address: str, ray_folder: Path
) -> None:
    secrets = {"PREFECT_API_AUTH_STRING", "WANDB_API_KEY"}
    for_the_store = {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"}
    # Of a Ray that somebody started here and that is gone.
    (ray_folder / "ray_current_cluster").write_text("127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", START, str(ray_folder)],
        env={**os.environ, **dict.fromkeys(secrets | for_the_store, "set"), "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cpus"] == 2 * max(2, os.cpu_count() or 2)
    assert for_the_store <= set(found["seen"])
    assert not secrets & set(found["seen"])
    assert secrets <= set(found["own"])
