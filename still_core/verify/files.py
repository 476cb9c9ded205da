"""Verification of a file of pairs, in order, in bounded memory.

pairs.jsonl -> Answer -> VerifierPool -> verdicts.jsonl (+ quarantine, + disagreements)
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from still_core.closing import Closing
from still_core.errors import ConfigError, explain
from still_core.problems.problem import AnswerKind
from still_core.verify.answer import Answer
from still_core.verify.audit import Disagreement
from still_core.verify.conventions import Conventions
from still_core.verify.pool import VerifierPool
from still_core.verify.verdict import Verdict

IN_FLIGHT_PER_WORKER = 64
"""Answers that wait for a worker at any time: bounds memory whatever the file's size."""
MAX_NAMED = 5
"""Malformed rows that the summary names; all of them stand in the quarantine file."""


@dataclass(kw_only=True)
class FileSummary:
    """What became of a file of pairs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    quarantined: list[str] = field(default_factory=list)
    """`line N: reason` of the first malformed rows."""
    num_quarantined: int = 0
    seconds: float = 0.0
    disagreements: int | None = None
    """None where no audit was asked for."""

    def lines(self) -> list[str]:
        """The summary for a person."""
        total = sum(self.outcomes.values())
        rate = total / self.seconds if self.seconds else 0.0
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        lines = [f"{total} answers in {self.seconds:.2f} s ({rate:.0f} answers/s)"]
        lines[0] += f": {counts}" if counts else ""
        if self.num_quarantined:
            lines.append(f"{self.num_quarantined} malformed rows: " + "; ".join(self.quarantined))
        if self.disagreements is not None:
            lines.append(f"{self.disagreements} disagreements with the second verifier")
        return lines


class Pair(NamedTuple):
    """A row of the input."""

    id: Any
    """As the file has it; the output repeats it."""
    answer: Answer


def read_pair(line: str) -> Pair:
    """One row as a pair.

    Raises:
        ValueError: not a JSON object, or a field is missing or of the wrong type.
    """
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in ("id", "gold", "pred"):
        if name not in row:
            raise ValueError(f"no field {name!r}")
    if isinstance(row["id"], dict | list):
        raise ValueError(f"id is {type(row['id']).__name__}, not text or a number")
    kind = row.get("kind") or "math"
    if kind not in list(AnswerKind):
        raise ValueError(f"kind {kind!r} is none of {', '.join(AnswerKind)}")
    choices = row.get("choices") or ()
    if not isinstance(choices, list | tuple):
        raise ValueError("choices is not a list")
    answer = Answer(
        id=str(row["id"]),
        gold=_as_text(row["gold"], "gold"),
        pred=_as_text(row["pred"], "pred"),
        kind=AnswerKind(kind),
        choices=tuple(str(choice) for choice in choices),
    )
    return Pair(row["id"], answer)


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if value is None and name == "pred":
        return ""
    if isinstance(value, int | float | list | dict) and not isinstance(value, bool):
        return json.dumps(value)
    raise ValueError(f"{name} is {type(value).__name__}, not text")


def verify_file(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    deadline_s: float = 2.0,
    audit: bool = False,
    conventions: Conventions | None = None,
) -> FileSummary:
    """Judge every row of `source` into `target`; malformed rows go to `target`.quarantine.jsonl.

    Raises:
        ConfigError: `source` can not be read or `target` can not be written.
    """
    if not source.is_file():
        raise ConfigError(explain("--input", got=str(source), expected="a readable JSONL file"))
    if source.resolve() == target.resolve():
        raise ConfigError(
            explain("--output", got=str(target), expected="a file other than --input")
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(explain("--output", got=str(target), expected=str(error))) from error
    summary = FileSummary(disagreements=0 if audit else None)
    started = time.perf_counter()
    with (
        out,
        VerifierPool(workers=workers, deadline_s=deadline_s, conventions=conventions) as pool,
        _Aside(target.with_name(target.name + ".disagreements.jsonl")) as disagreements,
    ):
        for pair, verdict, opinion in _judged(source, target, pool, workers, audit, summary):
            out.write(_line(_row(pair, verdict)))
            summary.outcomes[str(verdict.outcome)] += 1
            if opinion is not None and (found := opinion.result()) is not None:
                disagreements.write(found.to_row())
                summary.disagreements = (summary.disagreements or 0) + 1
    summary.seconds = time.perf_counter() - started
    return summary


class _Aside(Closing):
    """A JSONL file that exists only once it has a row; an old one of the same name is removed."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._file: TextIO | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, row: dict[str, Any]) -> None:
        self._file = self._file or self._path.open("w", encoding="utf-8")
        self._file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    r"""A row as a line; halves of surrogate pairs, which no UTF-8 can hold, as `\ud800`."""
    text = json.dumps(row, ensure_ascii=False)
    return (text if _is_utf8(text) else json.dumps(row)) + "\n"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(pair: Pair, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": pair.id,
        "verdict": str(verdict.outcome),
        "extracted": verdict.extracted,
        "rule": verdict.rule,
        "seconds": round(verdict.seconds, 6),
    }


Judged = tuple[Pair, Verdict, "Future[Disagreement | None] | None"]


def _judged(
    source: Path,
    target: Path,
    pool: VerifierPool,
    workers: int,
    audit: bool,
    summary: FileSummary,
) -> Iterator[Judged]:
    """Pairs with their verdicts, in order; at most a bounded number in flight."""
    waiting: deque[tuple[Pair, Future[Verdict], Future[Disagreement | None] | None]] = deque()
    for pair in _pairs(source, target, summary):
        second = pool.submit_audit(pair.answer) if audit else None
        waiting.append((pair, pool.submit(pair.answer), second))
        while len(waiting) > IN_FLIGHT_PER_WORKER * workers or (waiting and waiting[0][1].done()):
            first, verdict, second = waiting.popleft()
            yield first, verdict.result(), second
    for first, verdict, second in waiting:
        yield first, verdict.result(), second


def _pairs(source: Path, target: Path, summary: FileSummary) -> Iterator[Pair]:
    with (
        _Aside(target.with_name(target.name + ".quarantine.jsonl")) as quarantine,
        source.open(encoding="utf-8", errors="replace") as lines,
    ):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield read_pair(line)
            except ValueError as error:
                record = {"line": number, "reason": str(error), "text": line[:2000]}
                quarantine.write(record)
                summary.num_quarantined += 1
                if len(summary.quarantined) < MAX_NAMED:
                    summary.quarantined.append(f"line {number}: {error}")
