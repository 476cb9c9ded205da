"""A second opinion: another verifier on the same pairs, and the list of disagreements.

The second verifier is math-verify 0.9 (its own parser and SymPy's comparison), which shares no code
with `still_core.verify.reading`. It runs in a worker, without its own time-outs (they are signals,
for a main thread only), under the pool's deadline and memory cap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from still_core.verify.answer import Answer
from still_core.verify.symbolic import load_sympy
from still_core.verify.verdict import Outcome, Verdict


class Disagreement(NamedTuple):
    """A pair on which the two verifiers differ, for a person to read."""

    answer: Answer
    verdict: Verdict
    second: Outcome
    second_rule: str

    def to_row(self) -> dict[str, Any]:
        """Plain values for a JSONL file."""
        return {
            "id": self.answer.id,
            "gold": self.answer.gold,
            "extracted": self.verdict.extracted,
            "kind": str(self.answer.kind),
            "verdict": str(self.verdict.outcome),
            "rule": self.verdict.rule,
            "second": str(self.second),
            "second_rule": self.second_rule,
        }


def second_opinion(gold: str, pred: str) -> tuple[Outcome, str]:
    """math-verify's outcome; call it in a worker only."""
    load_sympy()
    from math_verify import parse, verify

    wanted = parse(_framed(gold), parsing_timeout=None)
    found = parse(_framed(pred), parsing_timeout=None)
    if not wanted or not found:
        return Outcome.UNPARSABLE, "math_verify"
    same = verify(wanted, found, timeout_seconds=None)
    return (Outcome.CORRECT if same else Outcome.WRONG), "math_verify"


def _framed(text: str) -> str:
    """math-verify reads LaTeX only between signs of mathematics."""
    return text if "$" in text or "\\[" in text or "\\(" in text else f"${text}$"


def disagree(first: Outcome, second: Outcome) -> bool:
    """Whether two outcomes contradict each other: one accepts and the other does not."""
    judged = (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSABLE)
    return (
        first in judged
        and second in judged
        and (first is Outcome.CORRECT) != (second is Outcome.CORRECT)
    )
