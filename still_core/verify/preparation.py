"""What the caller's process does before any worker: extract, cap, and settle what strings
settle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from still_core.problems.problem import AnswerKind
from still_core.verify.answer import VERIFIER_VERSION, Answer
from still_core.verify.caps import over_cap
from still_core.verify.choice import judge_choice
from still_core.verify.code import extract_code
from still_core.verify.conventions import Conventions
from still_core.verify.extraction import (
    MARK,
    SPOKEN_LIMIT,
    boxed_answer,
    is_sentence,
    solution_part,
    spoken_answer,
)
from still_core.verify.fast_path import judge_plain
from still_core.verify.text import judge_text
from still_core.verify.verdict import Outcome

MAX_EXTRACTED = 300
"""Characters of the extracted answer that a verdict keeps when the answer is over a cap."""

_BOLD = re.compile(r"\s*\*\*([^*\n]{1,200})\*\*[\s.]*")
"""Markdown around a bare answer."""
SHORT_LIMIT = 200
"""Longest unboxed text that is taken as a choice or as words."""

Settled = tuple[Outcome, str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer on its way to a verdict."""

    kind: AnswerKind
    gold: str
    extracted: str | None
    choices: tuple[str, ...]
    settled: Settled | None
    """Outcome and rule where no worker is needed."""

    @property
    def key(self) -> tuple[str, ...]:
        """Cache key within one pool, whose conventions are fixed."""
        return (VERIFIER_VERSION, self.kind, self.gold, self.extracted or "", *self.choices)

    def request(self, conventions: Conventions) -> dict[str, Any]:
        """The request to a worker."""
        return {
            "kind": str(self.kind),
            "gold": self.gold,
            "pred": self.extracted,
            "conventions": conventions.to_row(),
        }


def prepare(answer: Answer, conventions: Conventions) -> Prepared:
    """Extract the answer and settle it if that takes no algebra."""
    gold = boxed_answer(answer.gold, join=True) or answer.gold.strip()
    if answer.kind is AnswerKind.MATH:
        gold = _stated(gold) or gold
    if answer.kind is AnswerKind.CODE:
        program = extract_code(answer.pred, answer.gold)
        none = None if program else (Outcome.NO_ANSWER, "no_code")
        return Prepared(answer.kind, answer.gold, program, answer.choices, none)
    extracted, missing = _extract(answer, conventions)

    def settle(outcome: Outcome, rule: str) -> Prepared:
        shown = None if extracted is None else extracted[:MAX_EXTRACTED]
        return Prepared(answer.kind, gold, shown, answer.choices, (outcome, rule))

    if not gold:
        return settle(Outcome.ERROR, "gold_empty")
    if extracted is None or not extracted.strip():
        return settle(Outcome.NO_ANSWER, missing or "empty_box")
    if (cap := over_cap(gold)) is not None:
        return settle(Outcome.ERROR, f"gold_{cap}")
    if (cap := over_cap(extracted)) is not None:
        return settle(Outcome.UNPARSABLE, cap)
    settled: Settled | None
    if answer.kind is AnswerKind.CHOICE:
        settled = judge_choice(gold, extracted, answer.choices)
    elif answer.kind is AnswerKind.TEXT:
        settled = judge_text(gold, extracted)
    else:
        settled = judge_plain(gold, extracted, conventions)
    return Prepared(answer.kind, gold, extracted, answer.choices, settled)


def _extract(answer: Answer, conventions: Conventions) -> tuple[str | None, str]:
    """The answer's text, or None and the reason."""
    part = solution_part(answer.pred)
    if part.text is None:
        return None, "truncated_thought"
    boxed = boxed_answer(part.text, join=conventions.boxes == "joined")
    if boxed is not None:
        return boxed, "empty_box"
    if "\\boxed" in part.text:
        return None, "unclosed_box"
    if conventions.unboxed == "never":
        return None, "no_box"
    if answer.kind is not AnswerKind.MATH:
        return _named(part.text, answer.kind), "no_box"
    if part.marked:
        return None, "no_box"
    if (stated := _stated(part.text)) is not None:
        return stated, "empty"
    if len(part.text) > SPOKEN_LIMIT and is_sentence(part.text):
        return None, "no_box"
    return part.text.strip(), "empty"


def _named(text: str, kind: AnswerKind) -> str | None:
    """A short text as it is; of a longer one a last line that says "answer", for choices."""
    text = text.strip()
    if len(text) <= SHORT_LIMIT:
        return text
    last = text.rsplit("\n", 1)[-1].strip()
    says_so = kind is AnswerKind.CHOICE and re.search(r"answer|option", last, re.IGNORECASE)
    return last if says_so and len(last) <= SHORT_LIMIT else None


def _stated(text: str) -> str | None:
    """The answer inside a sentence; None where the text is no sentence or states none."""
    if (bold := _BOLD.fullmatch(text)) is not None:
        return bold[1]
    return spoken_answer(text) if MARK in text or is_sentence(text) else None
