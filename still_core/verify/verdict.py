"""The verdict on one answer. A time-out or an error is never folded into "wrong"."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of an answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The solution part holds no final answer."""
    UNPARSABLE = "unparsable"
    """There is an answer, and it is beyond what the verifier reads (or over its caps)."""
    TIMEOUT = "timeout"
    """The worker was killed at the deadline."""
    ERROR = "error"
    """The verifier failed; says nothing about the answer."""

    def is_judged(self) -> bool:
        """Whether the outcome says something about the answer (reward 0 or 1), rather than
        nothing."""
        return self in (Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One answer, judged."""

    outcome: Outcome
    extracted: str | None
    """The answer that was compared, None where there is none."""
    rule: str
    """Name of the rule that decided, e.g. `string`, `number`, `symbolic`, `set`, `no_box`."""
    verifier_version: str
    seconds: float
    """Wall-clock time of this verdict, >= 0."""
