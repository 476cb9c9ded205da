r"""Multiple choice: the letters that an answer names, compared as a set with gold's.

Reads `C`, `(C)`, `C.`, `C) text`, `\text{(C)}`, `**C**`, `Option C`, `The answer is C`, `A and C`,
`ACD`, `["A", "C"]`, and the text of a choice where the choices are known.
"""

# ruff: noqa: RUF001 - Chinese punctuation in real answers
from __future__ import annotations

import re

from still_core.verify.verdict import Outcome

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mathit|operatorname|mbox|bf|rm)(?![a-zA-Z])"
)
_NOISE = re.compile(r"[$*_`~{}]|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])")
_LETTERS = re.compile(
    r"[\[({\"' ]*[A-J][\])}\"'.: ]*(?:(?:\s*(?:,|;|/|&|and|or|和|、)\s*|\s*)"
    r"[\[({\"' ]*[A-J][\])}\"'.: ]*)*",
)
_LEADING = re.compile(
    r"[\[(\"' ]*([A-J])(?:[\])\"']+|[.:,。、)]|\s*$|(?=[^\x00-\x7f])|\s+(?=[a-z-]))"
)
_ANNOUNCED = re.compile(
    r"(?:answer|option|choice|correct|réponse|respuesta|antwort|答案|选)"
    r"(?:\s+(?:is|are|would be|must be|est|es|ist|option|choice|letter|:)|\s*[:：是为])*"
    r"\s*[:：]?\s*[\[(\"']*([A-J](?:\s*(?:,|&|and)\s*[A-J])*|[A-J]{1,10})(?![A-Za-z])",
    re.IGNORECASE,
)
_ALONE = re.compile(r"(?<![A-Za-z'])([A-J])(?![A-Za-z'])")


def _clean(text: str) -> str:
    return " ".join(_NOISE.sub(" ", _WRAPPER.sub(" ", text)).split())


def letters_of(text: str, choices: tuple[str, ...] = ()) -> frozenset[str] | None:
    """The letters that `text` names, None where it names none.

    >>> sorted(letters_of(r"\\text{(A) and (C)}"))
    ['A', 'C']
    """
    cleaned = _clean(text)
    if len(cleaned) == 1 and cleaned.isalpha() and cleaned.upper() <= "J":
        return frozenset(cleaned.upper())
    by_text = [
        chr(ord("A") + index)
        for index, choice in enumerate(choices)
        if _clean(choice).casefold() == cleaned.casefold()
    ]
    if len(by_text) == 1:
        return frozenset(by_text)
    if _LETTERS.fullmatch(cleaned):
        return frozenset(re.findall(r"[A-J]", re.sub(r"and|or", " ", cleaned)))
    leading = _LEADING.match(cleaned)
    announced = [match for match in _ANNOUNCED.finditer(cleaned) if match[1].isupper()]
    if announced and not (
        leading and leading[1] and cleaned[leading.end(1) : leading.end(1) + 1] in ".):"
    ):
        return frozenset(re.findall(r"[A-J]", announced[-1][1]))
    if leading and leading[1] not in "AI":
        return frozenset(leading[1])
    if leading and not cleaned[leading.end(1) : leading.end(1) + 1].isspace():
        return frozenset(leading[1])
    alone = _ALONE.findall(cleaned)
    return frozenset(alone[-1]) if alone else None


def judge_choice(gold: str, pred: str, choices: tuple[str, ...]) -> tuple[Outcome, str]:
    """Outcome and rule: the same set of letters is correct."""
    wanted = letters_of(gold, choices)
    if wanted is None:
        return Outcome.ERROR, "gold_no_letter"
    found = letters_of(pred, choices)
    if found is None:
        return Outcome.UNPARSABLE, "no_letter"
    return (Outcome.CORRECT if found == wanted else Outcome.WRONG), "letters"
