"""Short answers in words: equal after case, punctuation, articles and typesetting are removed."""

from __future__ import annotations

import re
import unicodedata

from still_core.verify.verdict import Outcome

_WRAPPER = re.compile(r"\\(?:text[a-z]{0,4}|math[a-z]{2,4}|mbox|operatorname)(?![a-zA-Z])")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def plain_words(text: str) -> str:
    """`text` as lower-case words with single blanks; letters of other scripts stay what they
    are."""
    text = unicodedata.normalize("NFC", _WRAPPER.sub(" ", text)).casefold()
    kept = "".join(
        char if char.isalnum() or unicodedata.category(char)[0] == "M" else _mark(char)
        for char in text
    )
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _mark(char: str) -> str:
    """Signs that change a meaning stay: minus, plus, percent, comparison."""
    return char if char in "-+%<>=/^.," and char not in ".," else " "


def judge_text(gold: str, pred: str) -> tuple[Outcome, str]:
    """Outcome and rule."""
    wanted, found = plain_words(gold), plain_words(pred)
    same = gold.strip() == pred.strip() if not wanted else wanted == found
    return (Outcome.CORRECT if same else Outcome.WRONG), "words"
