"""`still bank`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from deployments.cli import build_app, main
from still_core.rollout.bank import RolloutBank
from still_core.store import Store
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
