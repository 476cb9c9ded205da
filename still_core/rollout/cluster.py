"""The one place that starts or joins Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from still_core.errors import RolloutError, explain

SECRET_MARKS = (
    "APIKEY",
    "AUTH",
    "CONNECTION_STRING",
    "CONNECTION_URL",
    "CREDENTIAL",
    "DATABASE_URL",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PREFECT_",
    "SECRET",
    "TOKEN",
    "_DSN",
    "_KEY",
)
"""Parts of names of environment variables that workers do not get."""

_WORKERS_NEED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_CONTAINER_",
    "AWS_CREDENTIAL_",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "FSSPEC_S3_",
    "OPENAI_API_KEY",
    "RAY_",
)
"""How names begin that workers do need: to reach the store by a key, a file or the role of a pod,
to ask an endpoint, to talk to Ray where it wants tokens or certificates."""

_STORE_ADDRESS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)

EXIT_GRACE_S = 2.0
"""Within which the process of a killed actor ends, if it can hear of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorPlace:
    """The process of an actor."""

    pid: int
    node: str
    """Host name."""
    node_id: str
    """Ray's; host names may repeat in a cluster."""


def connect(*, num_cpus: float | None = None, temp_dir: str | None = None) -> None:
    """Join the cluster at `RAY_ADDRESS`, or start Ray on this machine; nothing if already joined.

    Ray is started where the address is unset or `local`. `auto` joins one that runs on this machine
    and starts none.

    Args:
        num_cpus: CPUs that a local Ray hands out. By default twice those of the machine, at least
            4: rollout actors keep their share while they idle between two stages, and a training
            job that waited for it would wait for ever.
        temp_dir: where a local Ray keeps its sockets and logs; must be a short path.

    Raises:
        RolloutError: the cluster does not answer.
    """
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    is_local = address in ("", "local")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's default of 15 lets anything else on the machine starve engines and trainers.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray puts handlers of its own on SIGTERM, in Python and in C++ (which prints a dump).
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Local workers inherit this process's environment, so secrets are out of it while Ray starts.
    hidden = _hide_secrets() if is_local else {}
    try:
        if is_local:
            _start_local(num_cpus or 2 * max(2, os.cpu_count() or 2), temp_dir)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # Ray raises a plain Exception where a local node does not come up in time.
    except Exception as error:
        raise RolloutError(
            explain(
                "Ray does not start or answer",
                got=str(error),
                expected="a free machine" if is_local else f"a cluster at {address}",
                remedy="check RAY_ADDRESS, free memory and /dev/shm",
            )
        ) from error
    finally:
        os.environ.update(hidden)
        if threading.current_thread() is threading.main_thread() and on_sigterm is not None:
            signal.signal(signal.SIGTERM, on_sigterm)


def _start_local(num_cpus: float, temp_dir: str | None) -> None:
    """Start Ray on this machine; a second time where a busy machine let the first time out."""
    import ray

    for last in (False, True):
        try:
            ray.init(
                # Said outright, or it would join a Ray that somebody started here.
                address="local",
                num_cpus=int(num_cpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=temp_dir or os.environ.get("RAY_TMPDIR"),
            )
            return
        except Exception as error:
            ray.shutdown()
            if last or "timed out during startup" not in str(error):
                raise


def worker_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for an actor: `extra`, and where the store is; no secret.

    Ray writes them into its logs, which all may read. Secrets come with the node: a local Ray
    inherits those that workers need, on a cluster they stand in the environment of every node.
    """
    present = {name: os.environ[name] for name in _STORE_ADDRESS if name in os.environ}
    return {**present, **extra}


def _hide_secrets() -> dict[str, str]:
    marked = (name for name in os.environ if any(mark in name.upper() for mark in SECRET_MARKS))
    # Trainers and rollout actors reach the store with the inherited credentials.
    names = [name for name in marked if not name.upper().startswith(_WORKERS_NEED)]
    return {name: os.environ.pop(name) for name in names}


def free_resources() -> str:
    """CPUs and GPUs that the cluster could hand out now, for a message."""
    import ray

    describe: Any = ray.available_resources
    free = describe()
    return f"{free.get('CPU', 0.0):g} CPU and {free.get('GPU', 0.0):g} GPU"


def own_place() -> ActorPlace:
    """Where the actor runs that calls this."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    return ActorPlace(pid=os.getpid(), node=socket.gethostname(), node_id=node_id)


def end_actors(actors: Iterable[Any], places: Iterable[ActorPlace]) -> None:
    """Kill actors, and those of their processes that can not hear of it: frozen or deep in C.

    Args:
        actors: Ray's handles.
        places: of those actors, as far as they are known. Processes of other nodes are Ray's alone.
    """
    import psutil
    import ray

    for actor in actors:
        ray.kill(actor)
    processes = []
    for place in places:
        if place.node_id == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(place.pid)
                # Another program may have the number of a process that is long gone.
                if process.name().startswith("ray::"):
                    processes.append(process)
    _, deaf = psutil.wait_procs(processes, timeout=EXIT_GRACE_S)
    for process in deaf:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # then Ray's alone
            process.kill()


def gist(error: BaseException | None) -> str:
    """One line of an error of Ray or torch: their texts run over many, and the last says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__
