"""Gold answers out of worked solutions, for sources without an answer field."""

from __future__ import annotations

import re

from still_core.problems.sources.adapter import FilteredRow
from still_core.verify.extraction import last_box

_GSM8K = re.compile(r"####[ \t]*(\S[^\n]*)")
_NO_ANSWER = {"", "none", "null", "nan", "n/a", "notfound", "not found", "proof", "unknown"}


def boxed_gold(solution: str) -> str:
    r"""Content of the last `\boxed{}` of a worked solution, "" where there is none."""
    box = last_box(solution)
    return "" if box is None else box.content


def gsm8k_gold(answer: str) -> str:
    """The number after the last `####`, without thousands separators; "" where there is none."""
    found = _GSM8K.findall(answer)
    return found[-1].strip().replace(",", "") if found else ""


def required_gold(*candidates: str) -> str:
    """The first candidate that is an answer; a candidate that is itself a box gives its content.

    Raises:
        FilteredRow: no_gold, the row is sound but has nothing to verify against.
    """
    for candidate in candidates:
        value = candidate.strip()
        if value.startswith("\\boxed"):
            value = boxed_gold(value) or value
        if value.lower() not in _NO_ANSWER:
            return value
    raise FilteredRow("no_gold")
