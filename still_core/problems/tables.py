"""Prepared problems as an artefact: problems, benchmarks, and the account of everything left out.

Prepared -> publish_prepared -> handle -> read_problems, read_benchmarks, ...
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from still_core.errors import DataError, explain
from still_core.problems.prepare import Prepared
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.problems.recipe import ProblemsRecipe
from still_core.store import Handle, Store
from still_core.store.bundle import publish_tables, read_rows_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A held-out set that models are evaluated on."""

    name: str
    level: str
    """`normal`, `hard` or `other`."""
    problems: tuple[Problem, ...]


def publish_prepared(
    store: Store, name: str, version: str, prepared: Prepared, recipe: ProblemsRecipe
) -> Handle:
    """Publish the problems with every table that explains them."""
    levels = {spec.name: spec.level for spec in recipe.benchmarks}
    benchmark_rows = [
        {"benchmark": benchmark, "benchmark_level": levels[benchmark], **problem.to_row()}
        for benchmark, problems in prepared.benchmarks.items()
        for problem in problems
    ]
    tables = {
        "problems": [problem.to_row() for problem in prepared.problems],
        "responses": [response.to_row() for response in prepared.responses],
        "benchmarks": benchmark_rows,
        "fingerprints": [fingerprint.to_row() for fingerprint in prepared.fingerprints],
        "overlap": overlap_rows(prepared),
        "dropped": [asdict(dropped) for dropped in prepared.dropped],
        "quarantined": [row.to_row() for row in prepared.quarantined],
        "left_out": [asdict(row) for row in prepared.left_out],
        "funnel": prepared.funnel.to_rows(),
    }
    meta = {
        "problems": len(prepared.problems),
        "quarantined": len(prepared.quarantined),
        "waiver": prepared.overlap.waiver,
    }
    return publish_tables(store, name, version, tables, meta=meta)


def overlap_rows(prepared: Prepared) -> list[dict[str, object]]:
    """Per benchmark: its problems, the training problems, how many were dropped and are left."""
    left = {item.benchmark: item.num_training for item in prepared.overlap.benchmarks}
    return [
        {
            "benchmark": name,
            "benchmark_problems": len(problems),
            "training_problems": len(prepared.problems),
            "dropped": prepared.num_overlapping.get(name, 0),
            "overlapping": left.get(name, 0),
        }
        for name, problems in prepared.benchmarks.items()
    ]


def read_problems(store: Store, handle: Handle) -> list[Problem]:
    """The problems that training may use."""
    return [Problem.from_row(row) for row in read_rows_of(store, handle, "problems")]


def read_responses(store: Store, handle: Handle) -> list[RawResponse]:
    """Responses that came with the problems' sources."""
    return [RawResponse.from_row(row) for row in read_rows_of(store, handle, "responses")]


def read_benchmarks(store: Store, handle: Handle) -> list[Benchmark]:
    """The benchmarks, in the order of the recipe.

    Raises:
        DataError: there is none, so nothing could be evaluated.
    """
    grouped: dict[tuple[str, str], list[Problem]] = {}
    for row in read_rows_of(store, handle, "benchmarks"):
        key = (row["benchmark"], row["benchmark_level"])
        grouped.setdefault(key, []).append(Problem.from_row(row))
    if not grouped:
        raise DataError(
            explain("the recipe has no benchmarks", remedy="name some in problems.benchmarks")
        )
    return [
        Benchmark(name=name, level=level, problems=tuple(problems))
        for (name, level), problems in grouped.items()
    ]
