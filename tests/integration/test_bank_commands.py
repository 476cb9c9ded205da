"""`still bank`, as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from deployments.cli import build_app, main
from still_core.errors import DataError
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.bank import RolloutBank
from still_core.store import Store
from still_core.store.bundle import publish_tables
from tests.fixtures.crash_campaign import make_rollout


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A store whose bank holds two rollouts of round 0 and three of round 1."""
    with RolloutBank(Store(tmp_path / "store")).writer(owner="o") as writer:
        for stage, count in ((0, 2), (1, 3)):
            for index in range(count):
                writer.append(make_rollout(stage, index))
    return str(tmp_path / "store")


def still(*words: str) -> None:
    build_app()(["bank", *words], result_action="return_value")


def test_ls_filters_and_says_what_it_left_out(root: str, capsys: pytest.CaptureFixture) -> None:
    still("ls", "--store", root, "--round", "1", "--limit", "2")
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert make_rollout(1, 0).id in printed.out
    assert "1 more" in printed.err


def test_show_prints_the_text_and_where_it_comes_from(
    root: str, capsys: pytest.CaptureFixture
) -> None:
    still("show", make_rollout(1, 2).id, "--store", root)
    printed = capsys.readouterr().out
    assert '"policy_version": 1' in printed
    assert printed.endswith("stage 1 thought 2\n")


def test_stats_are_read_by_people_and_programs(root: str, capsys: pytest.CaptureFixture) -> None:
    still("stats", "--store", root)
    assert "5 rollouts of 3 problems, 40 tokens" in capsys.readouterr().out
    still("stats", "--store", root, "--json")
    assert json.loads(capsys.readouterr().out)["policies"][1]["rollouts"] == 3


def test_export_writes_what_pandas_reads(root: str, tmp_path: Path) -> None:
    still("export", str(tmp_path / "x.jsonl"), "--store", root, "--problem", "p0")
    frame = pd.read_json(tmp_path / "x.jsonl", lines=True, dtype={"id": str})
    assert sorted(frame["policy_version"]) == [0, 1]


def test_gc_changes_nothing_without_yes(root: str, capsys: pytest.CaptureFixture) -> None:
    with RolloutBank(Store(root)).writer(owner="o") as writer:
        writer.append(make_rollout(2, 0))
    still("gc", "--store", root)
    assert "2 shards into 1" in capsys.readouterr().out
    assert RolloutBank(Store(root)).stats().shards == 2
    still("gc", "--store", root, "--yes")
    assert RolloutBank(Store(root)).stats().shards == 1
    assert RolloutBank(Store(root)).stats().rollouts == 6


# The words come from sys.argv, as for a user.
@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "nothing"], "no such rollout in the bank"),
        (["ls", "--verdict", "fine"], "expected correct, wrong"),
        (["export", "x.xlsx"], "unknown export format"),
        (["ls", "--limit", "-1"], "--limit: got -1, expected 0 or more"),
        (["regrade", "--deadline", "nan"], "deadlines > 0 and finite"),
        (["regrade", "--recipe", "minature"], "unknown recipe: got 'minature'"),
    ],
)
def test_a_mistake_is_one_line(
    root: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["still", "bank", *words, "--store", root])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_problem_id_is_one_line_whatever_it_holds(
    root: str, capsys: pytest.CaptureFixture
) -> None:
    hostile = "a\nb\x1b[2Jc\u202ed\u2028"
    with RolloutBank(Store(root)).writer(owner="o") as writer:
        writer.append(replace(make_rollout(3, 0), problem_id=hostile))
    still("ls", "--store", root, "--round", "3")
    assert capsys.readouterr().out.splitlines()[1].endswith(r" a\nb\x1b[2Jc\u202ed\u2028")


def test_an_export_that_matches_nothing_leaves_the_file(root: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("of another day")
    for _ in range(2):
        with pytest.raises(DataError, match="no rollout matches"):
            still("export", str(path), "--store", root, "--problem", "p99")
        assert path.exists() == (path.suffix == ".jsonl")
        path = path.with_suffix(".parquet")
    assert (tmp_path / "x.jsonl").read_text() == "of another day"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["store", "x.jsonl"]


def test_show_goes_on_without_a_damaged_manifest(
    root: str, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(root)
    store.publish("a", "1", {"f": b"1"})
    store.backend.put("manifests/a/1.json", b"{")
    still("show", make_rollout(1, 2).id, "--store", root)
    assert capsys.readouterr().out.endswith("stage 1 thought 2\n")
    assert caplog.text.count("left out: manifests/a/1.json") == 1


def test_regrade_judges_by_the_recipe_s_conventions(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    problem = Problem(
        id="sums/0",
        statement="How much?",
        gold="1/2",
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.NORMAL_MATH,
        source="sums",
        row=0,
    )
    publish_tables(store, "collect", "1", {"problems": [problem.to_row()]})
    drawn = replace(make_rollout(0, 0), problem_digest=problem.digest, text=r"\boxed{2/4}")
    with RolloutBank(store).writer(owner="o") as writer:
        writer.append(drawn)
    recipe = tmp_path / "strict.yaml"
    recipe.write_text("base: miniature\nverify: {conventions: {reduced: lowest}}\n")
    still("regrade", "--store", store.root)
    assert "1 unchanged" in capsys.readouterr().out
    still("regrade", "--store", store.root, "--recipe", str(recipe))
    assert "1  correct -> wrong" in capsys.readouterr().out
