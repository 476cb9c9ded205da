r"""Whether a text was finished or cut: what can be told without the finish reason.

A cut shows as something opened and not closed (a formula, a brace of the final box, a code fence)
or as a last line that stops inside a sentence. A closed final box near the end means finished.
"""

from __future__ import annotations

import re

END_MARKS = (
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "</s>",
)
"""End-of-sequence tokens that files keep in the text: a certain sign of a finished response."""

_LAST_WORDS = 240
"""Characters at the end in which a closed box tells that the answer has been given."""
_TERMINAL = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u2026", "\u061f", "\u06d4", "\u0964")
"""Sentence ends, with the full-width marks of Chinese, and those of Arabic, Urdu and Hindi."""
_CLOSING_SIGN = re.compile(
    "[\u220e\u25a0\u25a1\u25fb\u25fc\u2600-\u27bf\U0001f000-\U0001faff]"
    "[\ufe0e\ufe0f\u200d\U0001f3fb-\U0001f3ff]*$"
)
"""An emoji, a tick or the end of a proof."""
_CLOSERS = " \t\n\"'*_)]}>$`|~\u300d\u300f\u201d\u2019\uff09\u3011"
_LIST_MARK = re.compile(r"(?:^|\n)\s*(?:\d+[.)]|[-*#]+)\s*$")
_LABELLED = re.compile(
    r"(?:^|\n)[#*>\s]*(?:final\s+)?(?:answer|result|conclusion|output|\u7b54\u6848)[*\s]*[:\uff1a=]\s*\S",
    re.IGNORECASE,
)


_BOLD_LABEL = re.compile(
    r"(?P<item>(?:^|\n)[ \t]*(?:[-*+]|\d+[.)])[ \t]+)?"
    r"\*\*[^*\n]+(?::\*\*|\*\*:)\s*(?P<value>\S{1,24})$"
)
_NUMBER = re.compile(r"[^A-Za-z]*\d[^\s]*")
_BEGINNING = {
    "a", "an", "the", "this", "that", "these", "those", "it", "its", "in", "on", "at", "by", "for",
    "from", "to", "of", "with", "as", "if", "when", "while", "there", "we", "you", "they", "he",
    "she", "i", "is", "are", "and", "or", "but", "not", "each", "every", "some", "many", "using",
}  # fmt: skip
"""Words that begin a sentence and are no answer."""
_ANSWER_SENTENCE = re.compile(
    r"\banswer (?:is|would be|must be)\b|\u7b54\u6848(?:\u662f|\u4e3a)", re.IGNORECASE
)


def strip_end_mark(text: str) -> tuple[str, bool]:
    """The text without trailing end-of-sequence tokens, and whether there was one."""
    stripped, found = text.rstrip(), False
    while stripped.endswith(END_MARKS):
        mark = next(m for m in END_MARKS if stripped.endswith(m))
        stripped, found = stripped[: -len(mark)].rstrip(), True
    return (stripped if found else text), found


def ends_abruptly(text: str) -> bool:
    """Whether the text stops before its writer was done, judged by the text alone."""
    body = text.rstrip()
    if not body:
        return False
    if has_open_math(body):
        return True
    if _closed_box_at_end(body) or _LABELLED.search(body[-120:].rsplit("\n", 1)[-1]):
        return False
    if _LIST_MARK.search(body) or _has_open_quote(body):
        return True
    if _CLOSING_SIGN.search(body) or _is_labelled_value(body):
        return False
    core = body.rstrip(_CLOSERS)
    if not core:
        return False
    if core.endswith(_TERMINAL):
        return False
    # A formula, a table, a quote or bold text may end a text without a full stop.
    return len(core) == len(body)


def _is_labelled_value(body: str) -> bool:
    """Whether the text ends in a bold label and its value, e.g. `**Total:** 87`.

    After the label of a list item a word is the beginning of its text, a number a value.
    """
    found = _BOLD_LABEL.search(body)
    if found is None:
        return False
    value = found["value"]
    if _NUMBER.fullmatch(value):
        return True
    return found["item"] is None and value.strip("*_").lower() not in _BEGINNING


def ends_in_answer(text: str) -> bool:
    """Whether a text without a solution part (QwQ style) got as far as its answer.

    True for a closed final box, a closed code block or a sentence that names the answer at the end.
    """
    body = text.rstrip()
    if ends_abruptly(body):
        return False
    if _closed_box_at_end(body) or body.endswith("```"):
        return True
    tail = body[-_LAST_WORDS:]
    return bool(_ANSWER_SENTENCE.search(tail) or _LABELLED.search(tail))


def has_open_math(text: str) -> bool:
    """Whether a display, an inline formula, a code fence or a final box stands open at the end."""
    if text.count("```") % 2:
        return True
    if text.count("$$") % 2:
        return True
    for opening, closing in (("\\[", "\\]"), ("\\(", "\\)")):
        if text.rfind(opening) > text.rfind(closing):
            return True
    at = text.rfind("\\boxed{")
    return at >= 0 and _closing_brace(text, at + len("\\boxed{")) < 0


def _has_open_quote(text: str) -> bool:
    """Whether the text ends on a double quote that opens instead of closing."""
    return text.endswith('"') and text.rsplit("\n\n", 1)[-1].count('"') % 2 == 1


def _closed_box_at_end(text: str) -> bool:
    at = text.rfind("\\boxed{", max(0, len(text) - _LAST_WORDS))
    if at < 0:
        return False
    end = _closing_brace(text, at + len("\\boxed{"))
    return end >= 0 and len(text[end + 1 :].split()) <= 12


def _closing_brace(text: str, start: int) -> int:
    """Offset of the brace that closes the one opened right before `start`; -1 where none does."""
    depth = 1
    for i in range(start, len(text)):
        if text[i] == "{" and text[i - 1] != "\\":
            depth += 1
        elif text[i] == "}" and text[i - 1] != "\\":
            depth -= 1
            if depth == 0:
                return i
    return -1
