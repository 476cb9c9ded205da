"""Rows of any form, read by a field map.

Map keys: statement, gold, solution (its box is the gold where `gold` is not mapped), level, domain,
kind, bucket, choices, response, reasoning, teacher, finish_reason. Values are dotted paths into the
row.
"""

from __future__ import annotations

from typing import Any

from still_core.errors import ConfigError, explain
from still_core.problems.fields import answer_text, at, first, number, optional_text, text
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.rows import MalformedRow
from still_core.problems.sources.adapter import Context, ProblemDraft, Written, register
from still_core.problems.sources.choice import choices_of, gold_letters, inline_choices, lettered
from still_core.problems.sources.gold import boxed_gold, required_gold

MAP_KEYS = (
    "statement",
    "gold",
    "solution",
    "level",
    "domain",
    "kind",
    "bucket",
    "choices",
    "response",
    "reasoning",
    "teacher",
    "finish_reason",
)
FINISHED = {"stop": "stop", "eos": "stop", "end_turn": "stop", "stop_sequence": "stop"}
CUT = {"length": "length", "max_tokens": "length", "max_length": "length"}
"""How files and APIs say that a response ended, or was cut."""
DEFAULT_MAP = {
    "statement": "statement",
    "gold": "gold",
    "level": "level",
    "domain": "domain",
    "kind": "kind",
    "bucket": "bucket",
    "choices": "choices",
    "solution": "solution",
}
"""Our own words: rows written by this project are read without a map."""


@register("generic")
def generic(row: Any, context: Context) -> ProblemDraft:
    """One row by the spec's field map.

    Raises:
        ConfigError: the map has an unknown key.
    """
    paths = context.spec.fields or DEFAULT_MAP
    if unknown := set(paths) - set(MAP_KEYS):
        raise ConfigError(
            explain(
                f"unknown key in the field map of source {context.spec.name!r}",
                got=sorted(unknown),
                expected=", ".join(MAP_KEYS),
            )
        )
    choices = choices_of(at(row, paths["choices"]) or None) if "choices" in paths else ()
    solution = optional_text(row, paths["solution"]) if "solution" in paths else ""
    kind = _enum(AnswerKind, row, paths, "kind") or context.spec.kind
    if kind is None:
        kind = AnswerKind.CHOICE if choices else AnswerKind.MATH
    domain = optional_text(row, paths["domain"]) if "domain" in paths else ""
    domain = domain or context.spec.domain or "math"
    bucket = _enum(Bucket, row, paths, "bucket") or context.spec.bucket
    statement = text(row, paths.get("statement", "statement"))
    if choices and kind is AnswerKind.CHOICE and not inline_choices(statement):
        statement = lettered(statement, choices)
    return ProblemDraft(
        statement=statement,
        gold=_gold(row, paths, solution, choices if kind is AnswerKind.CHOICE else ()),
        kind=kind,
        domain=domain,
        bucket=bucket or (Bucket.NORMAL_MATH if domain == "math" else Bucket.OTHER),
        level=number(row, paths["level"]) if "level" in paths else None,
        choices=choices,
        solution=solution,
        responses=_responses(row, paths),
    )


STATEMENTS = (
    "statement",
    "problem",
    "Problem",
    "question",
    "Question",
    "instruction",
    "message_1",
    "prompt.0.content",
    "prompt",
    "conversations.0.value",
    "messages.0.content",
)
GOLDS = ("gold", "answer", "Answer", "final_answer", "reward_model.ground_truth", "Correct Answer")


@register("any")
def any_statement(row: Any, context: Context) -> ProblemDraft:
    """For comparing statements (decontamination): a row needs no gold."""
    statement = text(row, *STATEMENTS)
    gold = first(row, *GOLDS)
    if not isinstance(gold, str | int | float) or isinstance(gold, bool):
        gold = boxed_gold(optional_text({"solution": first(row, "solution")}, "solution"))
    return ProblemDraft(statement=statement, gold=answer_text(gold, "gold"), bucket=Bucket.OTHER)


def _gold(row: Any, paths: dict[str, str], solution: str, choices: tuple[str, ...]) -> str:
    value = at(row, paths["gold"]) if "gold" in paths else None
    if choices:
        return gold_letters(value, choices)
    stated = "" if value is None or value != value else answer_text(value, paths["gold"])
    return required_gold(stated, boxed_gold(solution))


def _responses(row: Any, paths: dict[str, str]) -> tuple[Written, ...]:
    if "response" not in paths:
        return ()
    teacher = optional_text(row, paths["teacher"]) if "teacher" in paths else ""
    reasoning = optional_text(row, paths["reasoning"]) if "reasoning" in paths else ""
    finish = optional_text(row, paths["finish_reason"]) if "finish_reason" in paths else ""
    value = at(row, paths["response"])
    several = value if isinstance(value, list) else [value]
    if not several or not all(isinstance(item, str) and item.strip() for item in several):
        # Of a response that was cut inside its thought, the thought is all there is.
        if not (reasoning and value in (None, "")):
            raise MalformedRow("missing_field", paths["response"])
        several = [""]
    return tuple(
        Written(
            text=item,
            reasoning=reasoning,
            teacher=teacher,
            finish_reason=(FINISHED | CUT).get(finish.lower(), ""),
        )
        for item in several
    )


def _enum(kind: Any, row: Any, paths: dict[str, str], key: str) -> Any:
    if key not in paths:
        return None
    value = optional_text(row, paths[key])
    if not value:
        return None
    try:
        return kind(value)
    except ValueError:
        raise MalformedRow("mistyped_field", f"{paths[key]}: {value!r}") from None
