r"""Where the final answer stands in a response.

    response -> solution part (the thought does not count) -> last \boxed{}, braces balanced

STILL-2 and STILL-3 take the last `\boxed{}`; an answer in the thought, in an unclosed box or in a
truncated response is none. All scans are linear in the length of the text.
"""

# ruff: noqa: RUF001 - Chinese punctuation in real answers
from __future__ import annotations

import re
from typing import NamedTuple

from still_core.verify.nodes import CONSTANTS, CONSTRUCTORS, FUNCTIONS, GREEK

END_OF_THOUGHT = ("<|end_of_thought|>", "</think>")
BEGIN_OF_THOUGHT = ("<|begin_of_thought|>", "<think>")
BEGIN_OF_SOLUTION = ("<|begin_of_solution|>", "<answer>")
END_OF_SOLUTION = ("<|end_of_solution|>", "</answer>")
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|eot_id|>")

BOX_COMMANDS = ("\\boxed", "\\fbox")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
JOIN_LIMIT = 40
"""Most characters between two boxes that still form one answer."""


class Box(NamedTuple):
    """A box and where it stands."""

    start: int
    end: int
    """One past the closing brace."""
    content: str


class SolutionPart(NamedTuple):
    """The part of a response in which the answer counts."""

    text: str | None
    """None where the thought never ended."""
    marked: bool
    """Whether the response carries markers of thought or solution."""


def solution_part(response: str) -> SolutionPart:
    """The text after the thought, without stop tokens."""
    text, marked = response, False
    end = max(text.rfind(token) for token in END_OF_THOUGHT)
    if end >= 0:
        marked = True
        text = text[text.index(">", end) + 1 :]
    # A thought that began (again) and never ended was truncated: nothing after it is a solution.
    if any(token in text for token in BEGIN_OF_THOUGHT):
        return SolutionPart(None, True)
    begin = max(text.rfind(token) for token in BEGIN_OF_SOLUTION)
    if begin >= 0:
        marked = True
        text = text[text.index(">", begin) + 1 :]
    for token in (*END_OF_SOLUTION, *STOP_TOKENS):
        cut = text.find(token)
        if cut >= 0:
            text = text[:cut]
    return SolutionPart(text, marked)


def closing_brace(text: str, opening: int) -> int:
    r"""Index of the brace that closes the one at `opening`, -1 where none does. `\{` is no
    brace."""
    depth = 0
    for sign in _BRACES.finditer(text, opening):
        if sign[0] == "{":
            depth += 1
        elif sign[0] == "}":
            depth -= 1
            if depth == 0:
                return sign.start()
    return -1


def last_box(text: str, before: int | None = None) -> Box | None:
    r"""The last `\boxed{...}` that starts before `before`; None for none, or an unclosed one.

    A box without braces (`\boxed 5`) runs to the next blank or dollar sign.
    """
    stop = len(text) if before is None else before
    start = max(text.rfind(command, 0, stop) for command in BOX_COMMANDS)
    if start < 0:
        return None
    after = start + (5 if text.startswith("\\fbox", start) else 6)
    while after < len(text) and text[after] in " \t\n":
        after += 1
    if after < len(text) and text[after] == "{":
        end = closing_brace(text, after)
        return None if end < 0 else Box(start, end + 1, text[after + 1 : end].strip())
    bare = re.compile(r"[^\s${}]*").match(text, after)
    end = bare.end() if bare else after
    return Box(start, end, text[after:end].rstrip(".,")) if end > after else None


_DELIMITERS = re.compile(r"\$|\\[()\[\]]|\\q?quad|\\[,;!: ]|\\text\s*\{|\\mbox\s*\{|[{}\s]")


def _joins(between: str) -> bool:
    """Whether the text between two boxes makes them one answer: punctuation alone, or "... and"."""
    if len(between) > JOIN_LIMIT or "\n\n" in between:
        return False
    words = _DELIMITERS.sub(" ", between).strip()
    if not words.strip(",;+&\\ "):
        return True
    return bool(re.search(r"(?:^|\W)(?:and|or)$", words)) and not re.search(r"[=.]", words)


def boxed_answer(text: str, *, join: bool) -> str | None:
    """Content of the last box, or of the last boxes joined by commas."""
    box = last_box(text)
    if box is None:
        return None
    contents, first = [box.content], box
    while join and len(contents) < 64:
        previous = last_box(text, first.start)
        if previous is None or previous.end > first.start:
            break
        if not _joins(text[previous.end : first.start]):
            break
        contents.append(previous.content)
        first = previous
    return ", ".join(reversed(contents))


def extract_final_answer(response_text: str) -> str | None:
    r"""The last `\boxed{}` of the solution part; None where there is none.

    >>> extract_final_answer(r"<think>\boxed{1}</think> So it is \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_final_answer(r"<think>maybe \boxed{1}") is None
    True
    """
    part = solution_part(response_text)
    return None if part.text is None else boxed_answer(part.text, join=False)


MARK = "####"
"""What GSM8K puts before a final answer, and models after it."""
SPOKEN_LIMIT = 400
"""Longest text without box in which a number said last may be the answer."""
SENTENCE_LIMIT = 1_500
"""Characters that tell whether a text speaks."""
STATED_LIMIT = 300
"""Where "the answer is" must stand in a longer text: within this many characters of its end."""

_SEGMENT = re.compile(
    r"\$\$((?:\\.|[^$\\])+)\$\$|\$((?:\\[^\n]|[^$\\\n])+)\$|\\\(([^\n]+?)\\\)|\\\[(.+?)\\\]",
    re.DOTALL,
)
_FINAL = re.compile(r"final answer(?:\s*(?:is|was|:|=))*\s*", re.IGNORECASE)
_STATED = re.compile(
    r"(?:answer|result|solution|答案|réponse|respuesta)(?:\s*(?:is|was|est|es|为|是|：|:|=))*\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z_^{])[^\W\d_]{2,}(?![^\W\d_]|[(.]\S)")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_MATHS_NAMES = frozenset({*GREEK, *FUNCTIONS, *CONSTANTS, *CONSTRUCTORS})
_MATHS_WORD = re.compile(
    r"(?:sqrt|frac|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|and|or|oo|inf(?:inity|ty)?|[a-z]?cm|[km]m"
    r"|units?|degrees?|[a-z]{1,2})",
    re.IGNORECASE,
)
_SAID_NUMBER = re.compile(
    r"[-+]?\\?\$?\s?(?:\\[dt]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|\d{1,3}(?:,\d{3})+(?:\.\d+)?"
    r"|\d+[.,]\d+|\d+/\d+|\d+)\s?(?:\\?%)?",
    re.ASCII,
)


def is_sentence(text: str) -> bool:
    """Whether a text speaks: two words outside commands that mathematics does not use."""
    bare = re.sub(r"\\[a-zA-Z]+\*?(?:\s*\{[^{}]*\})?", " ", text[:SENTENCE_LIMIT])
    words = [
        word
        for word in _WORD.findall(bare)
        if word not in _MATHS_NAMES and not _MATHS_WORD.fullmatch(word)
    ]
    segment = _SEGMENT.search(text[:SENTENCE_LIMIT])
    outside = segment is not None and (segment.start() > 0 or segment.end() < len(text.strip()))
    return (
        len(words) >= 2 or (bool(_CJK.search(text))) or (bool(words) and (outside or ":" in text))
    )


def spoken_answer(text: str) -> str | None:
    """The answer that a text without box states: after "the answer is", or last in a short one.

    None where a long text states none.
    """
    if (marked := text.rfind(MARK)) >= 0:
        return text[marked + len(MARK) :].strip().partition("\n")[0].strip() or None
    final = list(_FINAL.finditer(text))
    if final:
        return _statement(text[final[-1].end() :])
    for stated in reversed(list(_STATED.finditer(text, max(0, len(text) - STATED_LIMIT)))):
        if (found := _statement(text[stated.end() :])) is not None:
            return found
    if len(text) > SPOKEN_LIMIT:
        return None
    if segments := list(_SEGMENT.finditer(text)):
        inner = next(group for group in segments[-1].groups() if group is not None).strip()
        if not is_sentence(inner):
            return inner
    numbers = _SAID_NUMBER.findall(text)
    return numbers[-1].strip() if numbers else None


def _statement(tail: str) -> str | None:
    """What is stated at the start of `tail`: a formula, or the words up to the sentence's end."""
    tail = tail[:600].lstrip('*: \n"\\').lstrip() if not tail.startswith("\\") else tail[:600]
    if (segment := _SEGMENT.match(tail)) is not None:
        return next(group for group in segment.groups() if group is not None).strip()
    sentence = re.split(r"(?<=[^\s])[.。](?:\s|$)|\n", tail, maxsplit=1)[0].strip(" *")
    if not sentence.strip(" .:,;"):
        return None
    if is_sentence(sentence) and (number := _SAID_NUMBER.search(sentence)) is not None:
        return number[0].strip()
    return sentence
