"""Collect problems: sources to clean problems and benchmarks, with the decontamination gate."""

from __future__ import annotations

from collections.abc import Iterator

from still_core.problems.recipe import ProblemsRecipe
from still_core.store import Handle, Store
from tasks.artifacts import Shown, table
from tasks.stage import stage


def show_problems(store: Store, problems: Handle) -> Iterator[Shown]:
    """The funnel, overlap with the benchmarks, and malformed rows by file and line."""
    from still_core.store.bundle import read_rows_of

    yield table(
        "problem-funnel", read_rows_of(store, problems, "funnel"), "Problems: in = kept + dropped"
    )
    yield table("overlap", read_rows_of(store, problems, "overlap"), "Overlap with the benchmarks")
    malformed = read_rows_of(store, problems, "quarantined")
    if malformed:
        yield table(
            "quarantined", malformed[:200], f"{len(malformed)} malformed rows, by file and line"
        )


@stage(version="2026.11.21.2", show=show_problems)
def collect_problems(
    store: Store, version: str, *, problems: ProblemsRecipe, files: dict[str, str]
) -> Handle:
    """Read every source and benchmark, filter, decontaminate; refuse what overlaps."""
    from still_core.problems.places import pinned
    from still_core.problems.prepare import prepare_problems
    from still_core.problems.tables import publish_prepared

    prepared = prepare_problems(pinned(problems, files))
    return publish_prepared(store, "collect-problems", version, prepared, problems)
