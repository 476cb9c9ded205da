"""The architecture as tests: import directions, light imports, a fast command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "ray", "vllm", "trl", "transformers")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_imports_run_one_way() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_flows_load_nothing_heavy() -> None:
    assert loaded_after("import flows.still_2") == set()


def test_deployments_load_nothing_heavy() -> None:
    assert loaded_after("import deployments.still_2") == set()


def test_recipes_load_neither_prefect_nor_pandas() -> None:
    code = (
        "import still_core.recipes.loading, sys;"
        "print('prefect' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_help_needs_less_than_a_second_and_loads_nothing_heavy() -> None:
    command = "import deployments.cli as c; c.build_app()(['--help'], exit_on_error=False)"
    assert loaded_after(f"try:\n    {command}\nexcept SystemExit:\n    pass") == set()
    times = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "deployments.cli", "--help"], capture_output=True, cwd=ROOT
        )
        times.append(time.monotonic() - began)
    assert min(times) < 1.0


def test_worker_code_imports_no_prefect() -> None:
    code = (
        "import still_core.rollout.actor, still_core.train.rank, still_core.verify.worker, sys;"
        "print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_every_command_can_be_imported() -> None:
    import importlib

    from deployments.cli import COMMANDS, GROUPS

    places = list(COMMANDS.values())
    places += [place for _, commands in GROUPS.values() for place in commands.values()]
    for place in places:
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(f"deployments.cli.{module}"), function))
