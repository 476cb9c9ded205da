"""A raw response: what a teacher wrote for a problem, before unification.

teacher file | live teacher | scripted teacher -> RawResponse -> responses.unify -> Demonstration
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from still_core.problems.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class RawResponse:
    """One unjudged response of a teacher, with the place it was read from."""

    id: str
    """Unique within a run: `source/row`, with `#k` appended where one row holds several."""
    problem: Problem
    text: str
    """The response as written: R1, QwQ, OpenThoughts or STILL style; the solution alone where
    `reasoning` holds the thought."""
    teacher: str
    """Name of the model that wrote it; empty where the file does not say."""
    source_file: str
    """Source of the recipe that the row was read from, with the file in it where it has several;
    `bank:ROLLOUT` where a live teacher wrote it."""
    row: int
    """0-based row of that file."""
    reasoning: str = ""
    """A separate reasoning field (as R1 sends it); empty where the thought is in `text`."""
    finish_reason: str = ""
    """`stop` or `length`, as the engine or the file says; empty where unknown."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet: the problem's columns carry the prefix `problem_`."""
        return {
            "id": self.id,
            "text": self.text,
            "reasoning": self.reasoning,
            "teacher": self.teacher,
            "source_file": self.source_file,
            "row": self.row,
            "finish_reason": self.finish_reason,
            **{f"problem_{name}": value for name, value in self.problem.to_row().items()},
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> RawResponse:
        """The inverse of `to_row`."""
        prefix = "problem_"
        problem = {k[len(prefix) :]: v for k, v in row.items() if k.startswith(prefix)}
        return cls(
            id=row["id"],
            problem=Problem.from_row(problem),
            text=row["text"],
            reasoning=row["reasoning"],
            finish_reason=row.get("finish_reason") or "",
            teacher=row["teacher"],
            source_file=row["source_file"],
            row=int(row["row"]),
        )
