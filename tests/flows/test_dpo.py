"""Self-improve by DPO in place of SFT: pairs of what was explored, one more model, one more row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.planning import plan_still_2
from flows.still_2 import still_2
from still_core.distil.preferences import read_pairs
from still_core.inspection import describe_row, find_dataset
from still_core.recipes.loading import load_recipe
from still_core.recipes.recipe import Resources
from still_core.rollout.bank import RolloutBank
from still_core.store import Store
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]

CHANGES = [
    "self_improve.method=dpo",
    # So that the small model also slips.
    "explore.sampling.temperature=1.2",
    "explore.max_attempts=8",
    "pool.problems_per_round=24",
]


def test_a_run_by_dpo_shares_all_up_to_exploration_and_adds_an_aligned_model(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    recipe = load_recipe(str(finished_run.recipe_file), CHANGES)
    plan = plan_still_2(recipe, finished_run.store, Resources())
    expected = [f"{stage} round 1" for stage in ("explore-problems", "score-siblings")]
    expected += ["build-pairs after round 1", "gate-pairs M_2", "align-model M_2"]
    assert all(f"will run  {name}" in plan for name in expected)

    still_2(recipe, store=finished_run.store, reports=str(tmp_path))

    report = json.loads((tmp_path / "latest" / "report.json").read_text("utf-8"))
    ran = [stage["name"] for stage in report["stages"] if not stage["cached"]]
    assert ran == [*expected, "evaluate-model M_2", "compose-report"]
    assert [row["method"] for row in report["rows"]] == ["Backbone", "SFT", "SFT & DPO"]
    store = Store(finished_run.store)
    (made,) = store.list("build-pairs")
    pairs = read_pairs(store, made)
    assert report["rows"][2]["explore"] == len(pairs) > 0
    assert report["rows"][2]["distill"] == report["rows"][1]["distill"]
    bank = RolloutBank(store)
    for pair in pairs:
        chosen, rejected = bank.get([pair.chosen.source_row, pair.rejected.source_row]).values()
        assert chosen.problem_digest == rejected.problem_digest
        assert chosen.outcome == "correct"
        assert rejected.outcome in ("wrong", "no_answer")
    assert pairs[0].chosen.statement in describe_row(store, made, "0")
    assert find_dataset(finished_run.store)[1].name != "build-pairs"
    (aligned,) = (handle for handle in store.list("align-model") if handle.name == "align-model")
    curve = store.read_bytes(aligned, "metrics.jsonl").decode().splitlines()
    assert "rewards/margins" in json.loads(curve[0])
