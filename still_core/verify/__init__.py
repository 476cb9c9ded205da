"""Verification of answers: typed verdicts from a pool of killable workers.

    response -> extract (last box of the solution) -> fast path (string, number) -> worker ->
    Verdict

Names are loaded when first used, so that a worker process starts without what it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from still_core.verify.answer import VERIFIER_VERSION, Answer
    from still_core.verify.conventions import Conventions
    from still_core.verify.extraction import extract_final_answer
    from still_core.verify.pool import VerifierPool
    from still_core.verify.verdict import Outcome, Verdict

__all__ = [
    "VERIFIER_VERSION",
    "Answer",
    "Conventions",
    "Outcome",
    "Verdict",
    "VerifierPool",
    "extract_final_answer",
]

_HOMES = {
    "VERIFIER_VERSION": "answer",
    "Answer": "answer",
    "Conventions": "conventions",
    "Outcome": "verdict",
    "Verdict": "verdict",
    "VerifierPool": "pool",
    "extract_final_answer": "extraction",
}


def __getattr__(name: str) -> Any:
    """Load an exported name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
