"""Pass rates measured before exploration, and perplexity read off the rollouts: recipe fields."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from flows.still_2 import still_2
from still_core.distil.dataset import read_demonstrations
from still_core.errors import DataError
from still_core.recipes.loading import load_recipe
from still_core.rollout.bank import RolloutBank
from still_core.store import Handle, Store
from still_core.store.bundle import read_rows_of
from tests.flows.conftest import FinishedRun

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]

ATTEMPTS = 3
CHANGES = [
    f"pool.difficulty.attempts={ATTEMPTS}",
    "pool.difficulty.max_pass_rate=0.9",
    # So that the small model also slips.
    "explore.sampling.temperature=1.2",
    "pool.problems_per_round=24",
    "select.perplexity_source=rollout",
    "select.perplexity_share=0.5",
]


def test_a_window_that_no_pass_rate_lies_in_ends_the_run_before_it_explores(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    # Greedy attempts are all alike: each problem is solved by all of them or by none.
    changes = [
        *("pool.difficulty.attempts=2", "explore.sampling.temperature=0"),
        *("pool.difficulty.min_pass_rate=0.4", "pool.difficulty.max_pass_rate=0.6"),
    ]
    recipe = load_recipe(str(finished_run.recipe_file), changes)
    with pytest.raises(DataError, match=r"window: got {'too_.*0.4 to 0.6 of 2 attempts; widen"):
        still_2(recipe, store=finished_run.store, reports=str(tmp_path))


def made_by(store: Store, stage: str, before: set[Handle]) -> Handle:
    """What the stage published and had not published before."""
    (made,) = (h for h in store.list(f"{stage}/") if h.name == stage and h not in before)
    return made


def test_what_is_always_solved_is_not_explored_and_selection_reads_the_samplers_perplexity(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    store = Store(finished_run.store)
    before = set(store.list())
    recipe = load_recipe(str(finished_run.recipe_file), CHANGES)

    still_2(recipe, store=finished_run.store, reports=str(tmp_path))

    report = json.loads((tmp_path / "latest" / "report.json").read_text("utf-8"))
    assert "rate-problems" in [s["name"] for s in report["stages"] if not s["cached"]]
    rates = read_rows_of(store, made_by(store, "rate-problems", before), "rates")
    assert {row["attempts"] for row in rates} == {ATTEMPTS}
    always = {row["problem"] for row in rates if row["correct"] == ATTEMPTS}
    assert 0 < len(always) < len(rates) == 24
    (explored,) = report["explorations"]
    assert explored["problems"] == len(rates) - len(always)

    bank = RolloutBank(store)
    candidates = read_demonstrations(store, made_by(store, "score-candidates", before))
    for row in candidates:
        logprobs = bank.get([row.source_row])[row.source_row].logprobs
        assert logprobs is not None
        assert row.perplexity == pytest.approx(math.exp(-sum(logprobs) / len(logprobs)))
        assert row.problem_id not in always
    training_set = made_by(store, "refine-demonstrations", before)
    stays = {row.id for row in read_demonstrations(store, training_set)}
    gone = {
        row["id"]
        for row in read_rows_of(store, training_set, "dropped")
        if row["dropped_by"] == "perplexity"
    }
    assert gone, "half of the explored rows go"
    least = min(row.perplexity for row in candidates if row.id in stays)
    assert least >= max(row.perplexity for row in candidates if row.id in gone)
