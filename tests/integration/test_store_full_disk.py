"""A disk that is full or read-only: one clear line, nothing partial, the old artefacts whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from still_core.errors import StoreError
from still_core.rollout.bank import RolloutBank
from still_core.store import Store
from tests.fixtures.crash_campaign import make_rollout

store = Store(sys.argv[1])
kept = store.publish("kept", "1", {"f": b"x" * 1000})
try:
    store.publish("large", "1", {"f": b"y" * 8_000_000})
except StoreError as error:
    print("REFUSED", error)
assert store.find("large", "1") is None
assert store.exists(kept)
assert store.read_bytes(kept, "f") == b"x" * 1000
assert store.gc(keep=[kept], min_age_s=0).unfinished == ()
with RolloutBank(store).writer(owner="o") as writer:
    writer.append(make_rollout(0, 0))
assert len(list(RolloutBank(store).scan())) == 1
print("WHOLE")
"""


def in_small_disk(folder: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a tmpfs of its own."""
    folder.mkdir()
    command = (
        f"mount -t tmpfs -o size=2m tmpfs {folder} && mkdir {folder}/store && "
        f'mount -o remount,{options} {folder} && exec {sys.executable} -c "$SCRIPT" {folder}/store'
    )
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        env={"SCRIPT": script, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A place to mount on, where this machine allows it."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces are not allowed here")
    return tmp_path / "disk"


def test_a_full_disk_is_named_and_leaves_nothing_partial(small_disk: Path) -> None:
    done = in_small_disk(small_disk, "rw", SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "REFUSED" in done.stdout
    assert "No space left on device; free space on the disk" in done.stdout
    assert "WHOLE" in done.stdout


def test_a_read_only_disk_is_named_before_any_work(small_disk: Path) -> None:
    script = "import sys\nfrom still_core.store import Store\nStore(sys.argv[1]).check_writable()\n"
    done = in_small_disk(small_disk, "ro", script)
    assert done.returncode != 0
    assert "Read-only file system; choose a root that can be written" in done.stderr
