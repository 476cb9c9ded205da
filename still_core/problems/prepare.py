"""From a recipe's sources to clean problems: the problems' half of building a data set.

sources -> collect -> filters -> decontaminate -> require_clean -> Prepared
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from still_core.problems.collect import LeftOut, SourceCount, collect, collect_benchmarks
from still_core.problems.decontaminate import (
    Fingerprint,
    Overlap,
    OverlapReport,
    fingerprint_benchmarks,
    match_fingerprints,
    require_clean,
    without_overlaps,
)
from still_core.problems.filters import DroppedProblem, drop, filter_problems
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.problems.recipe import ProblemsRecipe
from still_core.problems.rows import Limits, Quarantined
from still_core.progress import ProgressListener

if TYPE_CHECKING:
    from still_core.refine.funnel import Funnel


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Problems that training may use, and the account of all others."""

    problems: list[Problem]
    responses: list[RawResponse]
    """Responses that came with the kept problems."""
    num_responses_read: int
    """Responses that came with all problems, dropped ones included."""
    benchmarks: dict[str, list[Problem]]
    fingerprints: list[Fingerprint]
    """Of the benchmarks: an input of the training task."""
    overlap: OverlapReport
    """Of the kept problems with the benchmarks, with the waiver where one was needed."""
    num_overlapping: dict[str, int]
    """Problems dropped as a benchmark's, by benchmark."""
    dropped: list[DroppedProblem]
    quarantined: list[Quarantined]
    left_out: list[LeftOut]
    """Sound rows that their sources do not want."""
    counts: list[SourceCount]
    funnel: Funnel
    """From rows read to problems kept."""


def prepare_problems(
    recipe: ProblemsRecipe,
    *,
    base: Path | None = None,
    limits: Limits | None = None,
    progress: ProgressListener | None = None,
) -> Prepared:
    """Collect, filter and decontaminate.

    Args:
        recipe: sources, benchmarks, filters and the gate.
        base: folder that relative local paths start from.
        limits: bounds on one row.
        progress: told while rows are read.
    Raises:
        ConfigError: a source that is not there or has an unknown adapter.
        DataError: an unreadable file or benchmark; overlap above the threshold without a waiver.
    """
    collection = collect(recipe.sources, base=base, limits=limits, progress=progress)
    benchmarks = collect_benchmarks(recipe.benchmarks, base=base)
    gate = recipe.decontaminate
    fingerprints = fingerprint_benchmarks(benchmarks, ngram=gate.ngram)
    filtered = filter_problems(collection.problems, recipe.filters)
    problems, dropped = filtered.kept, list(filtered.dropped)
    funnel = collection.funnel.extend(filtered.funnel)
    overlap = match_fingerprints(problems, fingerprints, recipe=gate)
    by_benchmark = {item.benchmark: item.num_training for item in overlap.benchmarks}
    if gate.drop:
        removed = _overlapping(overlap, problems)
        dropped.extend(removed)
        problems = overlap.kept
        reasons = Counter(f"overlap:{one.reason.split(' ', 1)[0]}" for one in removed)
        funnel.step("decontaminate", len(problems), reasons)
        overlap = without_overlaps(overlap)
    overlap = require_clean(overlap, threshold=gate.threshold, waiver=gate.waiver)
    ids = {problem.id for problem in problems}
    return Prepared(
        problems=problems,
        responses=[one for one in collection.responses if one.problem.id in ids],
        num_responses_read=len(collection.responses),
        benchmarks=benchmarks,
        fingerprints=fingerprints,
        overlap=overlap,
        num_overlapping=by_benchmark if gate.drop else {},
        dropped=dropped,
        quarantined=collection.quarantined,
        left_out=collection.left_out,
        counts=collection.counts,
        funnel=funnel,
    )


def _overlapping(overlap: OverlapReport, problems: list[Problem]) -> list[DroppedProblem]:
    """One record per overlapping problem; the reason names benchmark and benchmark problem."""
    first: dict[str, Overlap] = {}
    for one in overlap.overlaps:
        first.setdefault(one.problem, one)
    return [
        drop(
            problem,
            "overlap",
            f"{first[problem.id].benchmark} {first[problem.id].benchmark_problem}"
            f" {first[problem.id].match}",
        )
        for problem in problems
        if problem.id in first
    ]
