"""Files that bring responses beside their problems: OpenThoughts and STILL-2's own release."""

from __future__ import annotations

import re
from typing import Any

from still_core.problems.fields import at, first, number, optional_text, text
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.rows import MalformedRow
from still_core.problems.sources.adapter import Context, ProblemDraft, Written, register
from still_core.problems.sources.code import cases_gold
from still_core.problems.sources.gold import boxed_gold, required_gold


def conversation(row: Any) -> tuple[str, str]:
    """(question, response) of the first user and assistant turns of a conversation."""
    turns = first(row, "conversations", "messages")
    if not isinstance(turns, list):
        raise MalformedRow("missing_field", "conversations")
    by_role: dict[str, str] = {}
    for turn in turns:
        role = optional_text(turn, "from", "role")
        role = {"human": "user", "gpt": "assistant"}.get(role, role)
        by_role.setdefault(role, text(turn, "value", "content"))
    if "user" not in by_role or "assistant" not in by_role:
        raise MalformedRow("missing_field", "a user turn and an assistant turn")
    return by_role["user"], by_role["assistant"]


_OPENTHOUGHTS_ASK = re.compile(
    r"^\s*Return your final response within \\boxed\{\}\.\s*", re.IGNORECASE
)


@register("openthoughts", licence="Apache-2.0")
def openthoughts(row: Any, context: Context) -> ProblemDraft:
    """OpenThoughts: DeepSeek-R1 (QwQ-32B in version 3) responses beside their problems."""
    if at(row, "deepseek_reasoning") is not None or at(row, "deepseek_solution") is not None:
        statement = text(row, "problem")
        written = Written(
            text=optional_text(row, "deepseek_solution"),
            reasoning=optional_text(row, "deepseek_reasoning"),
            teacher="DeepSeek-R1",
        )
    else:
        statement, response = conversation(row)
        written = Written(
            text=response, teacher="DeepSeek-R1" if "<|begin" in response else "QwQ-32B"
        )
    domain = optional_text(row, "domain") or "math"
    kind, gold = _truth(row, domain, written)
    is_math = domain == "math"
    return ProblemDraft(
        statement=_OPENTHOUGHTS_ASK.sub("", statement),
        gold=gold,
        kind=kind,
        domain=domain,
        bucket=Bucket.HARD_MATH if is_math else Bucket.OTHER,
        level=number(row, "difficulty"),
        responses=(written,),
    )


LONGEST_BARE_TRUTH = 100
"""A ground truth without a box counts as the answer itself up to this length, in characters."""


def _truth(row: Any, domain: str, written: Written) -> tuple[AnswerKind, str]:
    """Kind and gold: test cases for code, else the ground truth's box, else the response's own."""
    cases = first(row, "test_cases")
    if domain == "code" and cases is not None:
        return AnswerKind.CODE, cases_gold(cases)
    truth = optional_text(row, "ground_truth_solution", "answer")
    bare = truth if len(truth) <= LONGEST_BARE_TRUTH else ""
    gold = required_gold(boxed_gold(truth), bare, boxed_gold(written.text))
    return (AnswerKind.MATH if domain == "math" else AnswerKind.TEXT), gold


@register("long-form-thought")
def long_form_thought(row: Any, context: Context) -> ProblemDraft:
    """STILL-2's own release. It has no gold: the response's box stands in, verified upstream."""
    response = text(row, "combined_text")
    domain = optional_text(row, "domain") or "math"
    is_math = domain == "math"
    return ProblemDraft(
        statement=text(row, "question"),
        gold=required_gold(boxed_gold(response)),
        kind=AnswerKind.MATH if is_math else AnswerKind.TEXT,
        domain=domain,
        bucket=Bucket.HARD_MATH if is_math else Bucket.OTHER,
        responses=(Written(text=response, teacher="still-2-release"),),
    )
