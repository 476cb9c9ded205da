"""A file of pairs: input order, quarantine, audit, bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.verify.files import verify_file


def write_rows(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_their_order_and_ids_whatever_the_worker_does(tmp_path: Path) -> None:
    pairs = [{"id": n, "gold": f"x+{n}", "pred": f"{n % 3}+x"} for n in range(300)]
    pairs[7] |= {"gold": "1", "pred": r"\boxed{1}"}
    out = tmp_path / "out.jsonl"
    summary = verify_file(write_rows(tmp_path / "in.jsonl", pairs), out, workers=2)
    rows = read_rows(out)
    assert [row["id"] for row in rows] == list(range(300))
    assert [row["id"] for row in rows if row["verdict"] == "correct"] == [0, 1, 2, 7]
    assert set(rows[0]) == {"id", "verdict", "extracted", "rule", "seconds"}
    assert summary.outcomes == {"correct": 4, "wrong": 296}
    assert "300 answers" in summary.lines()[0]
    assert "answers/s" in summary.lines()[0]


def test_malformed_rows_are_named_and_set_aside_and_the_rest_is_judged(tmp_path: Path) -> None:
    rows: list[object] = [
        {"id": "a", "gold": "3", "pred": "3"},
        "not json",
        "[1, 2]",
        {"id": "b", "gold": "3"},
        {"id": "c", "gold": "3", "pred": "3", "kind": "essay"},
        {"id": "d", "gold": True, "pred": "3"},
        "[" * 100_000,
        {"id": "e", "gold": 4, "pred": 4.0},
        {"id": "f", "gold": "4", "pred": None},
        {"id": "g", "gold": ["A", "C"], "pred": r"\boxed{AC}", "kind": "choice"},
    ]
    out = tmp_path / "out.jsonl"
    summary = verify_file(write_rows(tmp_path / "in.jsonl", rows), out)
    verdicts = [(row["id"], row["verdict"]) for row in read_rows(out)]
    assert verdicts == [("a", "correct"), ("e", "correct"), ("f", "no_answer"), ("g", "correct")]
    assert summary.num_quarantined == 6
    aside = read_rows(tmp_path / "out.jsonl.quarantine.jsonl")
    assert [row["line"] for row in aside] == [2, 3, 4, 5, 6, 7]
    assert "no field 'pred'" in summary.lines()[1]


def test_no_row_is_lost_to_another_rows_oddities(tmp_path: Path) -> None:
    rows: list[object] = [
        {"id": "half a surrogate", "gold": "x", "pred": "\\boxed{\ud800}"},
        {"id": "\ud83d", "gold": "3", "pred": "3"},
        {"id": "long", "gold": "3", "pred": "9" * 3_000_000},
        {"id": "a control character", "gold": "1", "pred": "\u0000\\boxed{1}"},
        {"id": {"deep": 1}, "gold": "3", "pred": "3"},
        '{"id": "cut", "gold": "3", "pr',
        '{"id": "a long number", "gold": "3", "pred": ' + "1" * 5_000 + "}",
        {"id": "no tests", "gold": "{}", "pred": "def f(): pass", "kind": "code"},
        {"id": "nan", "gold": "3", "pred": float("nan")},
        {"id": None, "gold": "3", "pred": "3"},
    ]
    out = tmp_path / "out.jsonl"
    summary = verify_file(write_rows(tmp_path / "in.jsonl", rows), out)
    verdicts = {row["id"]: row["verdict"] for row in read_rows(out)}
    assert list(verdicts) == [
        *("half a surrogate", "\ud83d", "long", "a control character", "no tests", "nan", None)
    ]
    assert verdicts["\ud83d"] == verdicts["a control character"] == verdicts[None] == "correct"
    assert verdicts["long"] == "unparsable"
    assert verdicts["no tests"] == "error"
    assert summary.num_quarantined + sum(summary.outcomes.values()) == len(rows)
    reasons = [str(row["reason"]) for row in read_rows(tmp_path / "out.jsonl.quarantine.jsonl")]
    assert [reason.split(":")[0] for reason in reasons] == [
        *("id is dict, not text or a number", "not JSON", "not JSON")
    ]


def test_an_empty_file_is_a_file_of_no_answers(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n\n")
    summary = verify_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert summary.lines() == ["0 answers in 0.00 s (0 answers/s)"]
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_the_audit_lists_disagreements_for_a_person_to_read(tmp_path: Path) -> None:
    rows: list[object] = [
        {"id": "same", "gold": r"\frac{1}{2}", "pred": "0.5"},
        {"id": "differs", "gold": r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "pred": "(1, 2)"},
        {"id": "mixed number", "gold": "1.5", "pred": "1 1/2"},
    ]
    out = tmp_path / "out.jsonl"
    summary = verify_file(write_rows(tmp_path / "in.jsonl", rows), out, audit=True, deadline_s=20)
    listed = read_rows(tmp_path / "out.jsonl.disagreements.jsonl")
    assert summary.disagreements == len(listed)
    assert "mixed number" in [row["id"] for row in listed]
    assert "same" not in [row["id"] for row in listed]
    assert all(row["verdict"] != row["second"] for row in listed)


def test_a_missing_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--input"):
        verify_file(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")
    path = write_rows(tmp_path / "in.jsonl", [{"id": 1, "gold": "1", "pred": "1"}])
    with pytest.raises(ConfigError, match="--output"):
        verify_file(path, path)
