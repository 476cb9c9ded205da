"""`still data build` with a live teacher: a real HTTP server, throttled, failing, and a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from still_core.rollout.bank import RolloutBank
from still_core.store import Store
from still_core.store.bundle import read_rows_of

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]
NUM_PROBLEMS, NUM_RESPONSES = 40, 3


@pytest.fixture(scope="module")
def chat() -> ModuleType:
    """The server's module."""
    path = REPOSITORY / "tests" / "fixtures" / "chat_server.py"
    spec = importlib.util.spec_from_file_location("chat_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_recipe(folder: Path) -> Path:
    """Forty sums, three responses each from one endpoint."""
    rows = [{"q": f"What is {i} + {i * i}?", "a": str(i + i * i)} for i in range(NUM_PROBLEMS)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "name": "sums",
        "adapter": "generic",
        "path": str(folder / "sums.jsonl"),
        "fields": {"statement": "q", "gold": "a"},
    }
    teacher = {
        "name": "adder",
        "kind": "endpoint",
        "source": "adder-1",
        "responses_per_problem": NUM_RESPONSES,
    }
    recipe = {
        "base": "miniature",
        "name": "sums",
        "problems": {"sources": [source], "benchmarks": []},
        "distil": {"teachers": [teacher]},
        "clean": {"min_thought_characters": 6},
        "mix": {"weights": {"normal_math": 1.0, "hard_math": 1.0}},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def start(folder: Path, recipe: Path, *resources: str) -> subprocess.Popen[str]:
    """`still data build` in a process group of its own."""
    program = [sys.executable, "-c", "from deployments.cli import main; main()"]
    arguments = ["data", "build", "--recipe", str(recipe), "--out", "store"]
    options = [part for one in resources for part in ("--resource", one)]
    return subprocess.Popen(
        [*program, *arguments, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_killed_distillation_goes_on_where_it_stopped(tmp_path: Path, chat: ModuleType) -> None:
    recipe = write_recipe(tmp_path)
    with chat.ChatServer() as server:
        resources = (f"rollout.endpoint={server.url}", "rollout.max_num_seqs=4")
        first = start(tmp_path, recipe, *resources)
        while server.answered.total() < 50 and first.poll() is None:
            time.sleep(0.05)
        # The bank makes rollouts durable within two seconds.
        time.sleep(2.5)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        before = server.answered.total()
        assert 50 <= before < NUM_PROBLEMS * NUM_RESPONSES
        second = start(tmp_path, recipe, *resources)
        uri, errors = second.communicate(timeout=120)
        assert second.returncode == 0, errors
        assert len(server.answered) == NUM_PROBLEMS * NUM_RESPONSES
        # Asked again is only what was on its way to the bank at the kill.
        again = server.answered.total() - NUM_PROBLEMS * NUM_RESPONSES
        assert again < before / 2
        assert set(server.rejected) == {429, 500, 503}
        assert server.most_at_once <= 4
        third = start(tmp_path, recipe, *resources)
        assert third.communicate(timeout=120)[0] == uri
        assert server.answered.total() == NUM_PROBLEMS * NUM_RESPONSES + again
    store = Store(str(tmp_path / "store"))
    handle = store.list("data/sums")[0]
    rows = store.read_rows(handle)
    wrong = [row for row in read_rows_of(store, handle, "dropped") if row["reason"] == "wrong"]
    right = sum(seed % 2 for _, seed in server.answered)
    assert len(wrong) == NUM_PROBLEMS * NUM_RESPONSES - right
    assert {row["author"] for row in rows} == {"adder"}
    assert all(row["source_row"].startswith("bank:") for row in rows)
    assert all("drawn with" in row["thought"] for row in rows)


def test_an_endpoint_without_an_address_is_one_line(tmp_path: Path) -> None:
    done = start(tmp_path, write_recipe(tmp_path))
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 2
    assert "needs an endpoint" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_local_model_teaches_through_the_engines(tmp_path: Path) -> None:
    source = {
        "name": "sums",
        "adapter": "miniature",
        "path": "miniature:arithmetic/normal?count=8&seed=5",
    }
    teacher = {"name": "own", "kind": "local", "source": "miniature", "responses_per_problem": 2}
    recipe = {
        "base": "miniature",
        "name": "local",
        "engine": {"kind": "transformers"},
        "problems": {"sources": [source], "benchmarks": []},
        # Whatever it writes is a demonstration here, right or wrong.
        "distil": {"teachers": [teacher], "max_tokens": 120},
        "clean": {"rules": ["markup"]},
    }
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump(recipe))
    _, errors = start(tmp_path, path).communicate(timeout=240)
    bank = RolloutBank(Store(str(tmp_path / "store")))
    drawn = list(bank.scan())
    assert len(drawn) == 16, errors
    assert {one.sample_index for one in drawn} == {0, 1}
    assert all(one.outcome and one.token_ids for one in drawn)
