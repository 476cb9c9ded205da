"""The last gate before training: is anything in this training set a benchmark's problem?"""

from __future__ import annotations

from collections.abc import Iterable

from still_core.problems.decontaminate import (
    Fingerprint,
    OverlapReport,
    match_fingerprints,
    require_clean,
)
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.recipe import DecontaminateRecipe
from still_core.responses.response import Demonstration
from still_core.store import Handle, Store


def require_uncontaminated(
    store: Store,
    demonstrations: Iterable[Demonstration],
    fingerprints: Handle,
    gate: DecontaminateRecipe,
) -> OverlapReport:
    """Hold every demonstration's problem against the benchmarks' fingerprints.

    Returns:
        What was found; with the waiver where one was needed.
    Raises:
        DataError: overlap above the gate's threshold, without a waiver.
    """
    known = [Fingerprint.from_row(row) for row in store.read_rows(fingerprints)]
    asked = {
        row.problem_digest: Problem(
            id=row.problem_id,
            statement=row.statement,
            gold=row.gold,
            kind=AnswerKind(row.kind),
            domain=row.domain,
            bucket=Bucket(row.bucket),
            source="demonstrations",
            row=0,
        )
        for row in demonstrations
    }
    overlap = match_fingerprints(list(asked.values()), known, recipe=gate)
    return require_clean(overlap, threshold=gate.threshold, waiver=gate.waiver)
