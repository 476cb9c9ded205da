r"""Multiple choice: the letters that an answer names, compared as a set with gold's.

Reads `C`, `(C)`, `C.`, `C) text`, `\text{(C)}`, `**C**`, `Option C`, `The answer is C`, `A and C`,
`ACD`, `["A", "C"]`, one `A. text` a line, and the text of a choice where the choices are known. No
pattern here has two ways to match the same text: answers are hostile, and this runs in the caller.
"""

# ruff: noqa: RUF001 - Chinese punctuation in real answers
from __future__ import annotations

import re

from still_core.verify.verdict import Outcome

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|mathit|operatorname|mbox|bf|rm)(?![a-zA-Z])"
)
_NOISE = re.compile(r"[$*_`~{}]|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])")
_FULL_WIDTH = {0xFF21 + index: chr(ord("A") + index) for index in range(10)}
_LETTERS = re.compile(r"(?:[A-J]|and(?![a-z])|or(?![a-z])|[\s,;/&和、\[\](){}\"'.:：，。])+")
_SMALL = re.compile(r"[(\[\s]*[a-j][)\].:\s]*(?:(?:,|;|/|&|and|or)[(\[\s]*[a-j][)\].:\s]*)*")
_JOINED = (
    r"[A-J](?:[)\]]?\s*(?:,|、|/|&|和|and\b|or\b)\s*(?:(?:and|or)\s+)?[(\[]?[A-J](?![A-Za-z']))*"
)
_GROUP = re.compile(rf"(?<![A-Za-z']){_JOINED}(?![A-Za-z'])")
_LEADING = re.compile(r"[\[(\"'\s]*([A-J])(?=[\])\"'.:,。、：，]|\s*$|[^\x00-\x7f]|\s+[a-z-])")
_LISTED = re.compile(r"\s*[\[(]?([A-Ja-j])[\]).:：、](?!\d)")
_ANNOUNCEMENT = (
    r"(?i:answers?|options?|choices?|correct|réponse|respuesta|antwort|答案|选项?)"
    r"[\s:：是为]*"
    r"(?:(?i:is|are|(?:would|must|should) be|est|es|ist|option|choice|letter)s?\b[\s:：是为]*)*"
    r"[\[(\"']*"
)
_ANNOUNCED = re.compile(rf"{_ANNOUNCEMENT}({_JOINED}|[A-J]{{2,10}})(?![A-Za-z])")
_ANNOUNCED_SMALL = re.compile(rf"{_ANNOUNCEMENT}([a-j])(?=[\])\"']|[.\s]*$)")
_ARTICLE = re.compile(r"\s+(?!is\b|are\b|was\b|and\b|or\b|seems\b|should\b|would\b|must\b)[a-z]")
"""What follows an `A` or `I` that is a word of English and no letter of a choice."""


def _clean(text: str) -> str:
    text = _NOISE.sub(" ", _WRAPPER.sub(" ", text.translate(_FULL_WIDTH)))
    return " ".join(text.split())


def letters_of(text: str, choices: tuple[str, ...] = ()) -> frozenset[str] | None:
    """The letters that `text` names, None where it names none.

    >>> sorted(letters_of(r"\\text{(A) and (C)}"))
    ['A', 'C']
    """
    cleaned = _clean(text)
    by_text = [
        chr(ord("A") + index)
        for index, choice in enumerate(choices)
        if _clean(choice).casefold() == cleaned.casefold()
    ]
    if len(by_text) == 1:
        return frozenset(by_text)
    if _SMALL.fullmatch(cleaned):
        cleaned = re.sub(r"\b[a-j]\b", lambda match: match[0].upper(), cleaned)
    if _LETTERS.fullmatch(cleaned) and (letters := _capitals(cleaned)):
        return letters
    return _listed(text) or _said(cleaned)


def _capitals(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-J]", text))


def _listed(text: str) -> frozenset[str] | None:
    """The letters of several lines `A. text`, where every line is one."""
    lines = [line for line in re.split(r"\n|\\\\|;", text) if line.strip()]
    matches = [_LISTED.match(_clean(line)) for line in lines[:20]]
    if len(lines) < 2 or not all(matches):
        return None
    return frozenset(match[1].upper() for match in matches if match)


def _said(cleaned: str) -> frozenset[str] | None:
    """The letters that a sentence names: at its head, after "answer", or last."""
    small = _LISTED.match(cleaned)
    leading = _LEADING.match(cleaned)
    if leading and cleaned[leading.end(1) : leading.end(1) + 1] in (".", ")", "]", ":", "："):
        return frozenset(leading[1])
    announced = list(_ANNOUNCED.finditer(cleaned))
    if announced and not (announced[-1][1] == "I" and _is_word(cleaned, announced[-1].start(1))):
        return _capitals(announced[-1][1])
    if (small_one := _ANNOUNCED_SMALL.search(cleaned)) is not None:
        return frozenset(small_one[1].upper())
    groups = [match for match in _GROUP.finditer(cleaned) if not _is_word(cleaned, match.start())]
    if leading and not _is_word(cleaned, leading.start(1)):
        first = _GROUP.match(cleaned, leading.start(1))
        return _capitals(first[0] if first else leading[1])
    if small:
        return frozenset(small[1].upper())
    return _capitals(groups[-1][0]) if groups else None


def _is_word(text: str, at: int) -> bool:
    """Whether the letter at this place is the article or the pronoun."""
    return text[at] in "AI" and _ARTICLE.match(text, at + 1) is not None


def judge_choice(gold: str, pred: str, choices: tuple[str, ...]) -> tuple[Outcome, str]:
    """Outcome and rule: the same set of letters is correct."""
    wanted = letters_of(gold, choices)
    if wanted is None:
        return Outcome.ERROR, "gold_no_letter"
    found = letters_of(pred, choices)
    if found is None:
        return Outcome.UNPARSABLE, "no_letter"
    return (Outcome.CORRECT if found == wanted else Outcome.WRONG), "letters"
