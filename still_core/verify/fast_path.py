r"""Answers that string or number comparison settles, in the caller's process.

Decides only what is certain: the same text after typesetting is removed, or two plain numbers
(integers, decimals, fractions of integers). Everything else goes to a worker.
"""

from __future__ import annotations

import re
from fractions import Fraction

from still_core.verify.conventions import Conventions
from still_core.verify.rounding import Decimal, same_number
from still_core.verify.verdict import Outcome

_SPACES = re.compile(r"\\[;: ]|~|\\q?quad(?![a-zA-Z])")
_TYPESETTING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits)(?![a-zA-Z])|\\[,!]|\$"
    r"|(?<!\d)\s+|\s+(?!\d)"
)
_FRACTION_COMMANDS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_INTEGER = r"[1-9]\d{0,2}(?:,\d{3})+|\d+"
_NUMBER = re.compile(rf"([+-]?)({_INTEGER})?(\.\d*)?", re.ASCII)
_QUOTIENT = re.compile(r"([+-]?)(?:\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(\d+)/(\d+))", re.ASCII)


def strip_typesetting(text: str) -> str:
    r"""`text` without blanks, `$`, `\left`, `\right` and thin spaces, with `\dfrac` as `\frac`."""
    text = _FRACTION_COMMANDS.sub(r"\\frac", _TYPESETTING.sub("", _SPACES.sub(" ", text)))
    return text[:-1] if text.endswith(".") and len(text) > 1 else text


def plain_number(text: str) -> Decimal | None:
    """The value of an integer, a decimal or a fraction of integers; None for anything else."""
    match = _NUMBER.fullmatch(text)
    if match and (match[2] or (match[3] and len(match[3]) > 1)):
        places = len(match[3]) - 1 if match[3] else 0
        digits = (match[2] or "0").replace(",", "") + (match[3] or ".")[1:]
        value = Fraction(int(digits), 10**places)
        return Decimal(-value if match[1] == "-" else value, places, exact=places == 0)
    match = _QUOTIENT.fullmatch(text)
    if match:
        top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
        if bottom:
            value = Fraction(top, bottom)
            return Decimal(-value if match[1] == "-" else value, 0, exact=True)
    return None


def judge_plain(gold: str, pred: str, conventions: Conventions) -> tuple[Outcome, str] | None:
    """Outcome and rule, or None where a worker has to decide."""
    bare_gold, bare_pred = strip_typesetting(gold), strip_typesetting(pred)
    if not bare_gold or not bare_pred:
        return None
    if bare_gold == bare_pred:
        return Outcome.CORRECT, "string"
    if conventions.reduced == "lowest":
        return None
    gold_number = plain_number(bare_gold)
    pred_number = None if gold_number is None else plain_number(bare_pred)
    if gold_number is None or pred_number is None:
        return None
    same = same_number(gold_number, pred_number, conventions.rounding_digits)
    return (Outcome.CORRECT if same else Outcome.WRONG), "number"
