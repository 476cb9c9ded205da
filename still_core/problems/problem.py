"""A problem: statement, gold answer, kind, domain, difficulty, source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from still_core.identity import digest


class AnswerKind(StrEnum):
    """How an answer is verified."""

    MATH = "math"
    CHOICE = "choice"
    CODE = "code"
    TEXT = "text"


class QuestionType(StrEnum):
    """What a statement asks for."""

    COMPUTATION = "computation"
    """One verifiable final answer: the only type that is kept."""
    MULTIPLE_CHOICE = "multiple_choice"
    PROOF = "proof"
    CONCEPT = "concept"
    OPEN_ENDED = "open_ended"
    MULTI_PART = "multi_part"


class Bucket(StrEnum):
    """The three buckets that STILL-2 mixes over (section 2.2.1)."""

    HARD_MATH = "hard_math"
    NORMAL_MATH = "normal_math"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem with a gold answer."""

    id: str
    """Unique within a run: `source/row`."""
    statement: str
    gold: str
    """Gold answer; for `kind=code` a JSON object with the tests."""
    kind: AnswerKind
    domain: str
    """math, physics, chemistry, biology, code, puzzle, ..."""
    bucket: Bucket
    source: str
    row: int
    """0-based row of the source file."""
    level: float | None = None
    """Difficulty within the source (MATH 1-5, Omni 1-10, chain length), None where unknown."""
    choices: tuple[str, ...] = ()
    solution: str = ""
    """Reference solution where the source has one."""
    licence: str = ""

    @property
    def digest(self) -> str:
        """Identity of the question itself, whatever its source."""
        return digest([self.statement, self.gold, self.kind, list(self.choices)])

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {
            **asdict(self),
            "kind": str(self.kind),
            "bucket": str(self.bucket),
            "choices": list(self.choices),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Problem:
        """The inverse of `to_row`; columns it does not know are ignored."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        level = known.get("level")
        known["level"] = None if level is None or level != level else float(level)
        known["kind"], known["bucket"] = AnswerKind(known["kind"]), Bucket(known["bucket"])
        choices = known.get("choices")
        known["choices"] = () if choices is None else tuple(choices)
        known["row"] = int(known["row"])
        return cls(**known)
