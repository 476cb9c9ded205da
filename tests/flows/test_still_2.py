"""The whole loop: what it makes, what it caches, what it repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.still_2 import still_2
from still_core.distil.dataset import read_demonstrations
from still_core.errors import ConfigError
from still_core.recipes.loading import load_recipe
from still_core.responses.response import Origin
from still_core.store import Handle, Store
from still_core.store.lineage import ancestors, descendants, parents
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]


def report_of(reports: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((reports / "latest" / "report.json").read_text("utf-8"))
    return content


def run_again(run: FinishedRun, reports: Path, *changes: str) -> dict[str, Any]:
    recipe = load_recipe(str(run.recipe_file), changes)
    still_2(recipe, store=run.store, reports=str(reports))
    return report_of(reports)


def test_the_report_has_a_row_for_the_backbone_and_one_for_each_training(
    finished_run: FinishedRun,
) -> None:
    report = report_of(finished_run.reports)
    assert [row["method"] for row in report["rows"]] == ["Backbone", "SFT", "SFT"]
    assert [row["explore"] > 0 for row in report["rows"]][:2] == [False, False]
    for row in report["rows"]:
        assert set(row["benchmarks"]) == {"arithmetic-normal", "arithmetic-hard"}
        for score in row["benchmarks"].values():
            assert 0 <= score["low"] <= score["accuracy"] <= score["high"] <= 1
            assert score["n"] == 12
    assert set(report["rows"][1]["p_vs_previous"]) == {"arithmetic-normal", "arithmetic-hard"}


def test_the_funnels_of_the_report_lead_to_the_rows_of_each_data_set(
    finished_run: FinishedRun,
) -> None:
    funnels = {one["name"]: one["steps"] for one in report_of(finished_run.reports)["funnels"]}
    assert list(funnels) == [
        "problems",
        "drafts",
        "completed drafts",
        "D_0",
        "candidates of round 1",
        "D_1",
    ]
    store = Store(finished_run.store)
    (d0,) = store.list("build-d0")
    assert funnels["D_0"][-1]["num_kept"] == len(read_demonstrations(store, d0))
    d1 = read_demonstrations(store, first_refined(store))
    assert funnels["D_1"][-1]["num_kept"] == len(d1)


def test_the_page_stands_alone_and_latest_leads_to_it(finished_run: FinishedRun) -> None:
    page = (finished_run.reports / "latest" / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert finished_run.page == (finished_run.reports / "latest" / "report.html").resolve()


def test_both_habits_of_teachers_reach_d0(finished_run: FinishedRun) -> None:
    store = Store(finished_run.store)
    (d0,) = store.list("build-d0")
    authors = {row.author for row in read_demonstrations(store, d0)}
    assert authors == {"separate", "stream"}


def first_refined(store: Store) -> Handle:
    """D_1 of the finished run; other tests refine further sets in its store, later."""
    made = store.manifests("refine-demonstrations/")
    return store.handle_of(min(made, key=lambda one: str(one.created_at)))


def test_what_exploration_found_is_in_d1_with_its_rollout_in_the_bank(
    finished_run: FinishedRun,
) -> None:
    from still_core.rollout.bank import RolloutBank

    store = Store(finished_run.store)
    d1 = first_refined(store)
    explored = [r for r in read_demonstrations(store, d1) if r.origin is Origin.EXPLORED]
    assert explored
    rollouts = RolloutBank(store).get([row.source_row for row in explored])
    assert all(rollouts[row.source_row].outcome == "correct" for row in explored)
    assert all(row.perplexity is not None and row.perplexity >= 1 for row in explored)


def test_the_second_run_does_nothing_again_and_gives_the_same_report(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    first, second = report_of(finished_run.reports), run_again(finished_run, tmp_path)
    assert all(stage["cached"] for stage in second["stages"])
    assert {**first, "stages": []} == {**second, "stages": []}


def test_a_new_refinement_threshold_reruns_refinement_and_what_hangs_on_it(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    report = run_again(finished_run, tmp_path, "select.perplexity_share=0.5")
    rerun = [stage["name"] for stage in report["stages"] if not stage["cached"]]
    assert rerun == [
        "refine-demonstrations D_1",
        "gate-demonstrations M_2",
        "train-model M_2",
        "evaluate-model M_2",
        "compose-report",
    ]


def test_a_waiver_holds_the_data_against_the_gate_again_and_trains_nothing(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    waiver = "problems.decontaminate.waiver=Ann: not needed"
    report = run_again(finished_run, tmp_path, waiver)
    rerun = {stage["name"].split()[0] for stage in report["stages"] if not stage["cached"]}
    assert "gate-demonstrations" in rerun
    assert not rerun & {"train-model", "explore-problems", "evaluate-model", "build-d0"}


def test_other_settings_of_the_evaluation_change_no_data_and_no_model(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    changes = ("evaluate.sampling.temperature=0.6", "evaluate.num_samples=2")
    report = run_again(finished_run, tmp_path, *changes)
    rerun = {stage["name"].split()[0] for stage in report["stages"] if not stage["cached"]}
    assert rerun == {"evaluate-model", "compose-report"}


def test_no_training_row_overlaps_a_benchmark(finished_run: FinishedRun) -> None:
    overlaps = report_of(finished_run.reports)["overlaps"]
    assert [row["benchmark"] for row in overlaps] == ["arithmetic-normal", "arithmetic-hard"]
    assert all(row["removed"] == row["left"] == 0 for row in overlaps)


def test_a_model_leads_forward_to_all_that_came_from_it_and_data_back_to_their_sources(
    finished_run: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    from deployments.cli.lineage import lineage

    store = Store(finished_run.store)
    (d0,) = store.list("build-d0")
    d1 = first_refined(store)
    models = [m for m in store.list("train-model") if m.name == "train-model"]
    (m1,) = (m for m in models if d0.digest in parents(store.manifest(m)))
    forward = {m.name for m in descendants(store, m1)}
    assert {
        "explore-problems",
        "score-candidates",
        "refine-demonstrations",
        "train-model",
    } <= forward
    assert {"evaluate-model", "compose-report"} <= forward
    back = {m.name for m in ancestors(store, d1)}
    assert {"explore-problems", "train-model", "build-d0", "collect-problems"} <= back
    lineage(f"train-model@{m1.version}", store=finished_run.store)
    said = capsys.readouterr().out
    assert "build-d0@" in said.split("went into")[0]
    assert "explore-problems@" in said.split("went into")[1]
    assert "rollouts of" in said
    with pytest.raises(ConfigError, match="artefacts go by that name"):
        lineage("train-model", store=finished_run.store)
