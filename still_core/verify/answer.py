"""One answer to verify."""

from __future__ import annotations

from dataclasses import dataclass

from still_core.problems.problem import AnswerKind

VERIFIER_VERSION = "2026.11.21.7"
"""Part of every verdict and cache key; changed whenever a verdict could change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A prediction beside its gold answer."""

    id: str
    gold: str
    """Bare, LaTeX, or holding a box; for `kind=code` a JSON object with the tests."""
    pred: str
    """A whole response (with `<think>`, STILL's markers or neither) or a bare answer."""
    kind: AnswerKind = AnswerKind.MATH
    choices: tuple[str, ...] = ()
    """Texts of the choices in order (A, B, ...), where known."""
