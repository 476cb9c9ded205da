"""Cleaning as a stream: order, workers, and faults planted in real thoughts (RELIABILITY F22)."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from still_core.errors import DataError
from still_core.progress import Progress
from still_core.refine.clean import Dropped, clean, clean_stream
from still_core.refine.recipe import CleanRecipe
from still_core.responses.response import Demonstration

RECIPE = CleanRecipe()


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    """The benchmark that plants faults, as a module."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "cleaning_faults.py"
    spec = importlib.util.spec_from_file_location("cleaning_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def real(faults: ModuleType, shared_data: Path) -> list[Demonstration]:
    """All complete real responses."""
    rows: list[Demonstration] = faults.clean_thoughts(shared_data)
    return rows


@pytest.fixture(scope="module")
def spoilt(faults: ModuleType, real: list[Demonstration]) -> list[Demonstration]:
    """Sixty real rows, each fault planted once, exact and near copies of some."""
    rng = random.Random(3)
    rows = real[100:160]
    spoilt = [faults.plant(rng.choice(rows), fault, rng) for fault in faults.FAULTS]
    exact = [replace(row, id=f"x/{row.id}") for row in rows[:5]]
    near = [
        replace(row, id=f"y/{row.id}", thought=faults.near_copy(row.thought, rng, 0.9)[0])
        for row in rows[5:10]
    ]
    return [*rows, *spoilt, *exact, *near]


def outcome(rows: list[Demonstration], workers: int = 1) -> dict[str, str]:
    refined = clean(rows, RECIPE, workers=workers)
    assert refined.funnel.num_in == len(rows)
    assert len(refined.kept) == refined.funnel.num_kept
    assert len(refined.dropped) == refined.funnel.num_dropped
    fates = {row.id: "kept" for row in refined.kept}
    return fates | {one.row.id: f"{one.rule}/{one.reason}" for one in refined.dropped}


def shuffled(rows: list[Demonstration], seed: int) -> list[Demonstration]:
    return random.Random(seed).sample(rows, len(rows))


def test_the_kept_set_does_not_depend_on_the_order_of_rows(spoilt: list[Demonstration]) -> None:
    expected = outcome(spoilt)
    assert {fate.split("/")[0] for fate in expected.values()} >= {
        "kept",
        "repetition",
        "gibberish",
        "scripts",
        "truncated",
        "markup",
        "duplicate_response",
    }
    for seed in range(8):
        assert outcome(shuffled(spoilt, seed)) == expected


@pytest.mark.slow
def test_fifty_orders_and_several_workers_keep_the_same_set(spoilt: list[Demonstration]) -> None:
    expected = outcome(spoilt)
    for seed in range(50):
        assert outcome(shuffled(spoilt, seed)) == expected
    for workers in (2, 3):
        assert outcome(shuffled(spoilt, workers), workers) == expected


def test_two_workers_keep_the_same_set(spoilt: list[Demonstration]) -> None:
    assert outcome(spoilt, workers=2) == outcome(spoilt)


def test_planted_faults_are_found_and_sound_rows_stay(
    faults: ModuleType, real: list[Demonstration]
) -> None:
    found, false = faults.measure_row_rules(real, 30, seed=11)
    for fault, (_, planted, hits) in found.items():
        assert hits / planted >= 0.9, fault
    total = sum(hits for _, _, hits in found.values())
    assert total / sum(planted for _, planted, _ in found.values()) >= 0.95
    assert len({name for names in false.values() for name in names}) / len(real) < 0.01
    near = faults.measure_duplicates(real, 30, seed=11)
    assert int(near["found"]) / int(near["planted"]) >= 0.95
    assert near["false"].startswith("0 of")


def test_a_stream_is_read_twice_and_reports_progress(real: list[Demonstration]) -> None:
    kept: list[Demonstration] = []
    dropped: list[Dropped] = []
    told: list[Progress] = []
    readings = []

    def read() -> Iterator[Demonstration]:
        readings.append(1)
        return iter(real)

    funnel = clean_stream(read, RECIPE, keep=kept.append, drop=dropped.append, progress=told.append)
    assert len(readings) == 2
    assert (len(kept), len(dropped)) == (funnel.num_kept, funnel.num_dropped)
    assert {one.stage for one in told} == {"clean: rules", "clean: rows"}
    for stage in ("clean: rules", "clean: rows"):
        *_, last = (one for one in told if one.stage == stage)
        assert last.done == last.total == len(real)


def test_rows_that_change_between_the_readings_are_refused(real: list[Demonstration]) -> None:
    lengths = iter((20, 19))
    with pytest.raises(DataError, match="changed between two readings"):
        clean_stream(
            lambda: iter(real[: next(lengths)]), RECIPE, keep=lambda _: None, drop=lambda _: None
        )


def test_no_rows_are_cleaned_to_no_rows() -> None:
    refined = clean([], RECIPE)
    assert (refined.kept, refined.dropped, refined.funnel.num_in) == ([], [], 0)
    assert [step.name for step in refined.funnel.steps] == list(RECIPE.rules)


def test_rows_with_nothing_in_them_are_dropped_and_not_fatal(real: list[Demonstration]) -> None:
    recipe = CleanRecipe(rules=("duplicate_problem", "duplicate_response"))
    rows = [replace(real[0], id=f"e{i}", thought="", solution="") for i in range(3)]
    assert len(clean(rows, recipe).kept) == 3
    odd = replace(real[0], id="odd", thought=f"{real[0].thought} \ud800.")
    assert clean([odd], RECIPE).dropped[0].reason == "broken_characters"
