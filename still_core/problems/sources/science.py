"""camel-ai's physics, chemistry and biology problems."""

from __future__ import annotations

import re
from typing import Any

from still_core.problems.fields import optional_text, text
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.sources.adapter import Context, ProblemDraft, register
from still_core.problems.sources.gold import boxed_gold, required_gold

_ROLES = {"physic": "physics", "chemi": "chemistry", "biolog": "biology", "mathematic": "math"}
_CONCLUSION = re.compile(
    r"(?:final answer|answer|result)\s*(?:is|:|=)\s*(?:approximately\s+|about\s+)?"
    r"([^\n]{1,120}?)(?:\.\s*$|\.\s|\n|$)",
    re.IGNORECASE,
)
_LAST_VALUE = re.compile(
    r"(?:=|\u2248|\bis|\bapproximately|\babout)\s*"
    r"(\$?-?\d[\d,]*(?:\.\d+)?(?:\s*(?:x|\u00d7|\*)\s*10\^?\(?-?\d+\)?)?\$?"
    r"(?:\s*[A-Za-z\u00b0\u03bc%/^\u00b2\u00b3\u207b\u00b9-]{1,12}){0,2})"
)


def concluded_value(solution: str) -> str:
    """The value that a worked solution ends with, "" where its last paragraph states none.

    GPT-4 wrote these solutions without boxes. Only a stated answer or a number in the last
    paragraph counts; prose explanations have no gold.
    """
    last = solution.strip().rsplit("\n\n", 1)[-1]
    if found := _CONCLUSION.findall(last):
        return str(found[-1]).strip().strip("$")
    values = _LAST_VALUE.findall(last)
    return str(values[-1]).strip(" .,") if values else ""


@register("camel", licence="CC-BY-NC-4.0")
def camel(row: Any, context: Context) -> ProblemDraft:
    """camel-ai; the subject comes from the role, else from the file's name or path."""
    place = (optional_text(row, "role_1") + " " + context.file).lower()
    domain = next((name for key, name in _ROLES.items() if key in place), "science")
    solution = text(row, "message_2")
    gold = required_gold(boxed_gold(solution), concluded_value(solution))
    return ProblemDraft(
        statement=text(row, "message_1"),
        gold=gold,
        kind=AnswerKind.MATH if gold[:1].isdigit() or gold[:1] in "-$\\" else AnswerKind.TEXT,
        domain=domain,
        bucket=Bucket.NORMAL_MATH if domain == "math" else Bucket.OTHER,
        solution=solution,
    )
