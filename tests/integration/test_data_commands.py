"""`still data`: a data set built from real files, looked into, and held against benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from still_core.dataset import dataset_version
from still_core.recipes.loading import load_recipe
from still_core.store import Store
from still_core.store.bundle import read_rows_of

pytestmark = pytest.mark.integration


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    """The command as a user runs it."""
    program = [sys.executable, "-c", "from deployments.cli import main; main()"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def still(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, ended."""
    with start(*arguments, folder=folder) as process:
        output, errors = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def num_verifier_workers(pid: int) -> int:
    """Workers of verifiers below a process."""
    try:
        below = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return 0
    return sum("still_core.verify.worker" in words_of(process) for process in below)


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def real_recipe(folder: Path, data: Path) -> Path:
    """The miniature's recipe with real thoughts of two models in place of its own problems."""
    thinking = {
        "statement": "question",
        "gold": "gold",
        "response": "response",
        "teacher": "model",
    }
    recipe = {
        "base": "miniature",
        "name": "real-thoughts",
        "problems": {
            "sources": [
                {
                    "name": "gsm8k-thoughts",
                    "adapter": "generic",
                    "path": str(data / "model_outputs_thinking_gsm8k.jsonl"),
                    "fields": thinking,
                },
                {
                    "name": "math500-thoughts",
                    "adapter": "generic",
                    "path": str(data / "model_outputs_thinking_math500.jsonl"),
                    "fields": thinking,
                },
                {"name": "bad", "adapter": "math", "path": str(folder / "bad.jsonl")},
            ],
            "benchmarks": [
                {
                    "name": "MATH-OAI",
                    "level": "normal",
                    "source": {
                        "name": "math-oai",
                        "adapter": "math-oai",
                        "path": str(data / "MATH_OAI.jsonl"),
                    },
                },
            ],
            "filters": {"drop_duplicates": False},
        },
        "distil": {"teachers": [{"name": "r1-and-qwq", "kind": "file", "style": "auto"}]},
        "clean": {"min_thought_characters": 200},
        "mix": {"weights": {"normal_math": 1.0}, "target_size": 10000},
    }
    (folder / "bad.jsonl").write_text('{"problem": "Find x."}\n{"problem": "Find\n{"answer": 1}\n')
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_data_set_of_real_thoughts_without_its_benchmark(
    tmp_path: Path, shared_data: Path
) -> None:
    recipe = real_recipe(tmp_path, shared_data)
    built = still("data", "build", "--recipe", str(recipe), "--out", "store", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    uri = built.stdout.strip()
    store = Store(str(tmp_path / "store"))
    handle = store.list("data/real-thoughts")[0]
    sources = {row["source"]: row for row in read_rows_of(store, handle, "sources")}
    assert sources["gsm8k-thoughts"]["rows_in"] == 263
    assert sources["math500-thoughts"]["rows_in"] == 168
    # All of the second file's problems are in MATH-500: the gate leaves none of them.
    (overlap,) = read_rows_of(store, handle, "overlap")
    assert (overlap["dropped"], overlap["num_found"]) == (168, 0)
    rows = store.read_rows(handle)
    assert {row["problem_id"].split("/")[0] for row in rows} == {"gsm8k-thoughts"}
    unfinished = read_rows_of(store, handle, "unfinished")
    dropped = read_rows_of(store, handle, "dropped")
    dropped_problems = read_rows_of(store, handle, "dropped_problems")
    accounted = len(rows) + len(dropped) + len(unfinished) + len(dropped_problems)
    assert accounted == 263 + 168
    again = still("data", "build", "--recipe", str(recipe), "--out", "store", folder=tmp_path)
    assert again.stdout.strip() == uri
    funnel = still("data", "funnel", uri, folder=tmp_path)
    assert "| decontaminate | 431 | 263 | overlap:MATH-OAI 168 |" in funnel.stdout
    for row_id in (unfinished[0]["response"], dropped_problems[0]["problem"]):
        shown = still("data", "show", uri, row_id, folder=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert row_id in shown.stdout
    for row_id, fate in (
        ("bad/0", "no_gold"),
        ("bad/1", "bad_json"),
        (f"{tmp_path / 'bad.jsonl'}:3", "missing_field"),
        (f"{dropped_problems[0]['problem']}#1", "overlap"),
    ):
        assert fate in still("data", "show", uri, row_id, folder=tmp_path).stdout
    missing = still("data", "show", uri, "nobody/1", folder=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1


def test_the_miniature_builds_shows_and_is_clean(tmp_path: Path) -> None:
    built = still("data", "build", "--recipe", "miniature", "--out", "store", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    uri = built.stdout.strip()
    shown = still("data", "show", "store", "0", folder=tmp_path)
    assert "verdict       correct" in shown.stdout
    assert "\\boxed{" in shown.stdout
    store = Store(str(tmp_path / "store"))
    handle = store.list("data/miniature")[0]
    dropped = read_rows_of(store, handle, "dropped")
    assert {row["dropped_by"] for row in dropped} >= {"verdict", "repetition", "duplicate_response"}
    assert "dropped by" in still("data", "show", uri, dropped[0]["id"], folder=tmp_path).stdout


def own_recipe(folder: Path, **sections: Any) -> Path:
    """Six problems with a response each, whose answers only a verifier's worker can judge."""
    rows = [
        {
            "q": f"Add a to {n} b.",
            "gold": f"a+{n}b",
            "response": f"<think>We add.</think> $\\boxed{{{n}b+a}}$",
        }
        for n in range(2, 8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "name": "sums",
        "adapter": "generic",
        "path": str(folder / "rows.jsonl"),
        "fields": {"statement": "q", "gold": "gold", "response": "response"},
    }
    recipe = {
        "base": "miniature",
        "name": "sums",
        "problems": {"sources": [source], "benchmarks": []},
        "distil": {"teachers": [{"name": "t", "kind": "file"}], "max_tokens": 160},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | sections))
    return path


@pytest.mark.parametrize(
    ("options", "section"),
    [
        (["--resource", "verify_workers=3"], {}),
        ([], {"resources": {"verify_workers": 3}}),
        (["--workers", "3"], {"resources": {"verify_workers": 2}}),
    ],
)
def test_answers_are_judged_by_as_many_workers_as_the_resources_say(
    options: list[str], section: dict[str, Any], tmp_path: Path
) -> None:
    recipe = own_recipe(tmp_path, **section)
    command = ["data", "build", "--recipe", str(recipe), "--out", "store", *options]
    most = 0
    with start(*command, folder=tmp_path) as building:
        while building.poll() is None:
            most = max(most, num_verifier_workers(building.pid))
            time.sleep(0.02)
        _, errors = building.communicate()
    assert building.returncode == 0, errors
    assert most == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "teacher 'far' needs an endpoint"),
        (["distil.teachers.1.kind=scripted"], "unknown scripted teacher"),
        (["engine.kind=openai"], "engine.kind=openai can not load the weights"),
        (
            ["distil.max_tokens=1000"],
            "distil.max_tokens does not fit into engine.max_model_len=384",
        ),
    ],
)
def test_no_teacher_is_asked_before_all_can_be(
    changes: list[str], said: str, tmp_path: Path
) -> None:
    teachers = [
        {"name": "near", "kind": "local", "source": "miniature"},
        {"name": "far", "kind": "endpoint", "source": "far-1"},
    ]
    recipe = own_recipe(tmp_path, distil={"teachers": teachers, "max_tokens": 160})
    options = [part for change in changes for part in ("--set", change)]
    done = still(
        "data", "build", "--recipe", str(recipe), "--out", "store", *options, folder=tmp_path
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "store").exists()


def test_another_engine_of_a_local_teacher_makes_another_data_set() -> None:
    def version(*changes: str) -> str:
        return dataset_version(load_recipe("miniature", changes), {})

    local = ("distil.teachers.0.kind=local", "distil.teachers.0.source=miniature")
    longer = "engine.max_model_len=512"
    assert version(*local, longer) != version(*local)
    assert version(longer) == version(), "nothing is drawn by the engine"


def test_decontaminate_finds_what_is_there_and_fails(tmp_path: Path, shared_data: Path) -> None:
    train = str(shared_data / "e2p_aime8.parquet")
    pair = f"aime24={shared_data / 'AIME24.jsonl'}"
    arguments = ("data", "decontaminate", "--train", train, "--benchmarks", pair)
    found = still(*arguments, "--out", "overlaps.jsonl", folder=tmp_path)
    assert found.returncode == 2
    assert "| aime24 | 30 | 0 | 30 | 100.0% | 240 of 240 |" in found.stdout
    assert found.stderr.count("\n") == 1
    rows = [json.loads(line) for line in (tmp_path / "overlaps.jsonl").read_text().splitlines()]
    assert len({row["problem"] for row in rows}) == 240
    waived = still(*arguments, "--waiver", "A. Person: test", folder=tmp_path)
    assert waived.returncode == 0


def test_decontaminate_passes_clean_data(tmp_path: Path, shared_data: Path) -> None:
    done = still(
        "data", "decontaminate",
        "--train", str(shared_data / "math_train_deepscaler.json"),
        "--benchmarks", f"math-oai={shared_data / 'MATH_OAI.jsonl'}",
        f"aime24={shared_data / 'AIME24.jsonl'}",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 of 7474" in done.stdout


@pytest.mark.parametrize(
    ("train", "pair"),
    [("missing.jsonl", "b=x.jsonl"), ("x.jsonl", "x.jsonl"), ("x.jsonl", "b=missing.jsonl")],
)
def test_a_users_mistake_is_one_line(train: str, pair: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"problem": "Find x.", "answer": "1"}\n')
    done = still("data", "decontaminate", "--train", train, "--benchmarks", pair, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
