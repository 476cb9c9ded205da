"""A response (thought + solution) and a demonstration (one used for SFT, with its lineage)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What the model wrote, split by the strict parser."""

    thought: str
    solution: str


class Origin(StrEnum):
    """Where a demonstration comes from (STILL-2 Table 2's columns)."""

    DISTILLED = "distilled"
    EXPLORED = "explored"


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """A verified response that a model is trained on."""

    id: str
    problem_id: str
    problem_digest: str
    statement: str
    gold: str
    kind: str
    domain: str
    bucket: str
    level: float | None
    thought: str
    solution: str
    origin: Origin
    author: str
    """Teacher name, or the digest of the policy that explored it."""
    round: int
    """0 for distilled, t for found in round t."""
    source_row: str
    """`source:row` of the teacher's response, with the file where the source has several, or the
    rollout id."""
    verdict: str
    verifier_version: str
    perplexity: float | None = None
    num_thought_tokens: int | None = None
    solution_rollout_id: str = ""
    """Rollout that wrote the solution, where the teacher wrote a thought alone."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {**asdict(self), "origin": str(self.origin)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Demonstration:
        """The inverse of `to_row`; columns it does not know are ignored."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        for name in ("level", "perplexity", "num_thought_tokens"):
            value = known.get(name)
            known[name] = None if value is None or value != value else value
        if known["num_thought_tokens"] is not None:
            known["num_thought_tokens"] = int(known["num_thought_tokens"])
        known["origin"], known["round"] = Origin(known["origin"]), int(known["round"])
        return cls(**known)
