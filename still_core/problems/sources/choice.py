"""Sources whose answers are letters: Gaokao, RiddleSense, GPQA, medical questions.

The statement always shows the lettered options, `choices` holds their texts in order, and the gold
is the letter (several letters, in order, where several are right).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from still_core.identity import derive_seed
from still_core.problems.fields import answer_text, at, first, optional_text, text
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.rows import MalformedRow
from still_core.problems.sources.adapter import (
    Context,
    FilteredRow,
    ProblemDraft,
    Written,
    register,
)
from still_core.problems.sources.gold import required_gold

LETTERS = "ABCDEFGHIJ"
_INLINE_OPTION = re.compile(
    r"(?:^|(?<=\n)|(?<=\s\s))\(?([A-J])\)?\s*[.\u3001\uff0e:)\uff09]\s*(?=\S)"
)
_DENSE_OPTION = re.compile(r"(?<![A-Za-z0-9${\\])([A-J])\s*[.\u3001\uff0e]\s*(?=\S)")
_PAREN_OPTION = re.compile(r"(?:^|\s)\(([A-J])\)\s*(?=\S)")


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question followed by its options, one lettered line each."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return f"{question}\n\n" + "\n".join(lines)


def choices_of(value: Any) -> tuple[str, ...]:
    """Option texts from a list, from {letter: text}, or from {label: [...], text: [...]}."""
    if value is None:
        return ()
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list):
        value = [item.get("text") if isinstance(item, dict) else item for item in value]
        if 2 <= len(value) <= len(LETTERS):
            return tuple(answer_text(item, "choices") for item in value)
    raise MalformedRow("mistyped_field", "choices: expected 2 to 10 texts")


def inline_choices(question: str) -> tuple[str, ...]:
    """Texts of options that stand lettered inside a question; () unless they run A, B, C, ..."""
    best: tuple[str, ...] = ()
    for pattern in (_INLINE_OPTION, _PAREN_OPTION, _DENSE_OPTION):
        found = list(pattern.finditer(question))[-len(LETTERS) :]
        # The last run A, B, C, ... counts: a letter may also stand in the question itself.
        for begin in range(len(found) - 1, -1, -1):
            run = found[begin:]
            if len(run) > max(1, len(best)) and _letters(run) == LETTERS[: len(run)]:
                ends = [*(one.start() for one in run[1:]), len(question)]
                pairs = zip(run, ends, strict=True)
                best = tuple(question[one.end() : end].strip() for one, end in pairs)
    return best


def _letters(run: Sequence[re.Match[str]]) -> str:
    return "".join(one.group(1) for one in run)


def gold_letters(value: Any, choices: Sequence[str]) -> str:
    """Gold letter(s), from letters, a 1-based number, a list of letters or an option's own text.

    Raises:
        FilteredRow: no_gold where there is none, bad_gold where it names no option.
    """
    if value is None or value == "" or value == []:
        raise FilteredRow("no_gold")
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise MalformedRow("mistyped_field", "answer: expected letters")
        value = "".join(sorted(set("".join(value))))
    answer = answer_text(value, "answer").strip("() .")
    allowed = LETTERS[: len(choices)] if choices else LETTERS
    if answer.upper() and set(answer.upper()) <= set(allowed):
        return answer.upper()
    if answer in choices:
        return LETTERS[list(choices).index(answer)]
    if answer.isdigit() and 1 <= int(answer) <= len(allowed):
        return LETTERS[int(answer) - 1]
    raise FilteredRow("bad_gold")


GAOKAO_DOMAINS = {
    "physics": "physics",
    "chemistry": "chemistry",
    "biology": "biology",
    "math": "math",
    "history": "history",
    "geography": "geography",
    "political": "politics",
    "english": "english",
    "chinese": "chinese",
}


@register("gaokao", licence="Apache-2.0")
def gaokao(row: Any, context: Context) -> ProblemDraft:
    """Gaokao; the subject is in the file's name.

    Rows with pictures or several questions are left out.
    """
    statement = text(row, "question")
    answers = at(row, "answer")
    if isinstance(answers, list) and len(answers) > 1:
        raise FilteredRow("multi_part")
    if "![](" in statement:
        raise FilteredRow("picture")
    choices = inline_choices(statement)
    domain = next((d for key, d in GAOKAO_DOMAINS.items() if key in context.stem), "science")
    return ProblemDraft(
        statement=statement,
        gold=gold_letters(answers, choices),
        kind=AnswerKind.CHOICE,
        domain=domain,
        bucket=Bucket.NORMAL_MATH if domain == "math" else Bucket.OTHER,
        choices=choices,
        solution=optional_text(row, "analysis"),
    )


@register("riddlesense", licence="research use, by form")
def riddlesense(row: Any, context: Context) -> ProblemDraft:
    """RiddleSense in both public forms; the test split has no answers and is left out."""
    question = text(row, "question.stem", "question")
    choices = choices_of(first(row, "question.choices", "choices"))
    if not choices:
        raise MalformedRow("missing_field", "choices")
    return ProblemDraft(
        statement=lettered(question, choices),
        gold=gold_letters(at(row, "answerKey"), choices),
        kind=AnswerKind.CHOICE,
        domain="puzzle",
        bucket=Bucket.OTHER,
        choices=choices,
    )


_GPQA_DOMAINS = {"physics": "physics", "chemistry": "chemistry", "biology": "biology"}


@register("gpqa", licence="CC-BY-4.0")
def gpqa(row: Any, context: Context) -> ProblemDraft:
    """GPQA in both public forms.

    The first form has no order of options: one is derived from the question, so that the gold
    letter is the same in every run and spread evenly over the four.
    """
    question = text(row, "Question", "question")
    inside = inline_choices(question)
    letter = first(row, "Correct Choice", "answer")
    if inside and letter is not None:
        choices, statement, gold = inside, question, gold_letters(letter, inside)
    else:
        right = text(row, "Correct Answer")
        wrong = [text(row, f"Incorrect Answer {number}") for number in (1, 2, 3)]
        place = derive_seed("gpqa", question) % 4
        choices = (*wrong[:place], right, *wrong[place:])
        statement, gold = lettered(question, choices), LETTERS[place]
    subject = optional_text(row, "High-level domain", "domain").lower()
    return ProblemDraft(
        statement=statement,
        gold=gold,
        kind=AnswerKind.CHOICE,
        domain=_GPQA_DOMAINS.get(subject, "science"),
        bucket=Bucket.OTHER,
        choices=choices,
    )


@register("huatuo", licence="Apache-2.0")
def huatuo(row: Any, context: Context) -> ProblemDraft:
    """HuatuoGPT-o1: the open-ended question, its ground truth and the distilled thought."""
    statement = text(row, "Open-ended Verifiable Question", "Question")
    written = Written(
        text=optional_text(row, "Response"),
        reasoning=optional_text(row, "Complex_CoT"),
        teacher="HuatuoGPT-o1-data",
    )
    return ProblemDraft(
        statement=statement,
        gold=required_gold(optional_text(row, "Ground-True Answer")),
        kind=AnswerKind.TEXT,
        domain="medicine",
        bucket=Bucket.OTHER,
        responses=(written,) if written.text or written.reasoning else (),
    )
