"""Agreement with the labels of other graders and of real models' outputs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from still_core.verify import Outcome, VerifierPool


def test_agreement_is_at_least_99_percent_and_no_accept_is_unexplained(
    shared_data: Path, row_source: ModuleType
) -> None:
    reasons = row_source.left_out()
    rows = [
        row for row in row_source.labelled_rows(shared_data) if (row.file, row.row) not in reasons
    ]
    with VerifierPool() as pool:
        verdicts = pool.verify_many([row.answer for row in rows])
    accepted = [verdict.outcome is Outcome.CORRECT for verdict in verdicts]
    named = [
        row.answer.id for row, ok in zip(rows, accepted, strict=True) if ok and not row.expected
    ]
    agreed = sum(ok == row.expected for row, ok in zip(rows, accepted, strict=True))
    assert named == []
    assert agreed / len(rows) >= 0.99
    assert len(rows) > 5_000
    assert not any(verdict.outcome is Outcome.ERROR for verdict in verdicts)


def test_every_left_out_row_exists_and_states_a_reason(
    shared_data: Path, row_source: ModuleType
) -> None:
    labelled = {(row.file, row.row) for row in row_source.labelled_rows(shared_data)}
    reasons = row_source.left_out()
    assert set(reasons) <= labelled
    assert all(len(reason) > 20 and ":" in reason for reason in reasons.values())
    assert len(reasons) < 0.02 * len(labelled)
