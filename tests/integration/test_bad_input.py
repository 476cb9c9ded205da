"""A user's mistake gets one clear line and an exit code that is not 0, before any work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from still_core.miniature import random_backbone

ROOT = Path(__file__).resolve().parents[2]


def still(*arguments: str, cwd: Path = ROOT, **set: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | set,
        timeout=120,
    )


def refused(*arguments: str, **set: str) -> str:
    done = still(*arguments, **set)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("section", ["", "sft"], ids=["much", "little"])
def test_a_reader_who_has_enough_of_the_output_gets_no_traceback(section: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as closed:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "recipe", "fields", section],
            stdout=closed,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--recipe", "minature"], "miniature, still-2-32b"),
        (["--set", "sfft.epochs=3"], "sfft"),
        (["--set", "sft.epoch=3"], "epochs"),
        (["--set", "sft.epochs=three"], "sft.epochs"),
        (["--set", "sft.epochs=0"], "greater than or equal to 1"),
        (["--set", "explore.max_attempts=-1"], "explore.max_attempts"),
        (["--set", "sft.learning_rate=NaN"], "sft.learning_rate"),
        (["--set", "rounds"], "key=value"),
        (["--resource", "train.num_ranks=0"], "train.num_ranks"),
        (["--set", "backbone.model=./nowhere"], "no model folder there"),
        (["--set", "problems.sources.0.path=nowhere.jsonl"], "nowhere.jsonl"),
        (["--set", 'evaluate.benchmarks=["arithmetic-hrad"]'], "arithmetic-hrad"),
        (["--set", 'pool.sources=["explore-maths"]'], "explore-maths"),
        (["--set", "problems.benchmarks.1.name=arithmetic-normal"], "two benchmarks of one name"),
        (["--set", 'distil.teachers.0.problems=["sums"]'], "sums"),
        (
            [
                *("--set", "distil.teachers.0.kind=file"),
                *("--set", "distil.teachers.1.kind=file"),
                *("--set", "distil.teachers.1.problems=[]"),
            ],
            "two teachers of files would take the same responses",
        ),
        (["--store", "/proc/still"], "/proc/still"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(changes: list[str], said: str, tmp_path: Path) -> None:
    store = [] if "--store" in changes else ["--store", str(tmp_path)]
    assert said in refused("run", *changes, *store)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --recipe " + 300 * "r", "unknown recipe: got 'rrr"),
        ("run --set backbone.model=./" + 300 * "m", "no model folder there: got './mmm"),
        ("report " + 300 * "r", "no file has so long a name: got 'reports/rrr"),
        (f"verify --output OUT --input {300 * 'v'}", "no file has so long a name: got 'vvv"),
        ("data decontaminate --train FILE --benchmarks b=FILE --ngram 2", "ngram: "),
        ("data decontaminate --train FILE --benchmarks b=FILE --containment 60", "containment: "),
        ("model backbone --steps -5", "num_steps: "),
        ("model small FILE --out OUT --vocabulary 10", "vocabulary: got 10, expected 263 or more"),
        ("model small FILE --out OUT --hidden 10", "hidden: got 10, expected a multiple of 32"),
        ("model small FILE --out OUT --layers 0", "layers: got 0, expected 1 or more"),
        ("model small --out OUT", "no file to train the tokenizer on"),
    ],
    ids=lambda text: text[:60],
)
def test_an_option_that_can_not_be_is_one_line(arguments: str, said: str, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "model"
    rows.write_text(json.dumps({"problem": "1+1", "answer": "2"}) + "\n", encoding="utf-8")
    places = arguments.replace("FILE", str(rows)).replace("OUT", str(out)).split()
    assert said in refused(*places, STILL_STORE=str(tmp_path / "store"))
    assert not out.exists()


@pytest.mark.parametrize("command", ["run", "model backbone"])
def test_a_prefect_server_that_is_down_is_one_line(command: str, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/api"
    line = refused(*command.split(), PREFECT_API_URL=url, STILL_STORE=str(tmp_path))
    assert f"no Prefect server to run with, {url}: " in line
    assert line.endswith("start it (`still up`), or unset PREFECT_API_URL to use a local one")


def test_unknown_keys_of_a_recipe_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("base: miniature\nexplore: {max_atempts: 3}\n", encoding="utf-8")
    assert "explore.max_atempts: unknown key" in refused("run", "--recipe", str(file))


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert str(file) in refused("run", "--recipe", str(file))


@pytest.mark.parametrize(
    ("missing", "said"),
    [("tokenizer", "no tokenizer"), ("safetensors", "no safetensors"), ("config", "config.json")],
)
def test_an_incomplete_model_folder_is_refused_by_what_it_lacks(
    missing: str, said: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    random_backbone(model, seed=0)
    for path in model.iterdir():
        if missing in path.name and "generation" not in path.name:
            path.unlink()
    changes = ["--set", f"backbone.model={json.dumps(str(model))}", "--store", str(tmp_path / "s")]
    assert said in refused("run", *changes)


def test_a_file_that_can_not_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"problem": "1+1", "answer": "2"}) + "\n", encoding="utf-8")
    target, compared = "/proc/still/x.jsonl", ["--train", str(rows), "--benchmarks", f"own={rows}"]
    (tmp_path / "store").mkdir()
    assert target in refused("bank", "export", target, "--store", str(tmp_path / "store"))
    assert target in refused("data", "decontaminate", *compared, "--out", target)


def test_a_model_that_brings_code_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    random_backbone(model, seed=0)
    shutil.copy(__file__, model / "modeling_own.py")
    changes = ["--set", f"backbone.model={json.dumps(str(model))}", "--store", str(tmp_path / "s")]
    assert "code of its own" in refused("run", *changes)
