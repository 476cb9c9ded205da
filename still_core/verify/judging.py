"""What a worker does with one mathematical pair.

gold, pred -> read both -> same shape and values? -> outcome and rule
"""

from __future__ import annotations

import re
from math import gcd
from typing import Any

from still_core.verify.comparison import same_answer
from still_core.verify.conventions import Conventions
from still_core.verify.fast_path import strip_typesetting
from still_core.verify.nodes import CapError, Node, NotReadError
from still_core.verify.reading import read
from still_core.verify.symbolic import with_divisors
from still_core.verify.units import is_unit_formula
from still_core.verify.verdict import Outcome

_TEXT_COMMAND = re.compile(r"\\(?:text[a-z]{0,4}|math[a-z]{2,4}|mbox|operatorname)(?![a-zA-Z])")
_PROSE = re.compile(r"[A-Za-z]{3}")
_LOG = re.compile(r"\\log(?![a-zA-Z]|\s*_)")
"""A logarithm without base is natural, or to base 10: both are read."""
_DECIMAL_COMMA = re.compile(r"[$\s]*-?\d+,\d+[$\s]*", re.ASCII)
_PLAIN_UNITS = re.compile(
    r"([$\s]*-?\d[\d.,]*)[\s~]*(?:\\[dt]?frac\{([A-Za-z]{1,3})\}\{([A-Za-z]{1,3}(?:\^\{?\d\}?)?)\}"
    r"|([A-Za-z]{1,3}\s*/\s*[A-Za-z]{1,3}(?:\^\{?\d\}?)?))[$\s.]*",
    re.ASCII,
)
"""A number and a quotient of two short words: `5 m/s^2`, `5\\frac{m}{s}`; variables or units."""
_CLOCK = re.compile(
    r"[$\s]*(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*(?:\\text\{)?\s*([aApP]\.?[mM]\.?)?[}$\s.]*",
    re.ASCII,
)


def judge_request(request: dict[str, Any]) -> dict[str, Any]:
    """Outcome and rule of one request of the pool."""
    if request["kind"] == "digits":
        from still_core.verify.verifiability import parses_to_digits

        digits = parses_to_digits(request["gold"])
        return {"outcome": str(Outcome.CORRECT if digits else Outcome.WRONG), "rule": "digits"}
    if request["kind"] == "audit":
        from still_core.verify.audit import second_opinion

        outcome, rule = second_opinion(request["gold"], request["pred"])
        return {"outcome": str(outcome), "rule": rule}
    outcome, rule = judge_math(
        request["gold"], request["pred"], Conventions(**request["conventions"])
    )
    return {"outcome": str(outcome), "rule": rule}


def judge_math(gold: str, pred: str, conventions: Conventions) -> tuple[Outcome, str]:
    """Whether `pred` is the answer `gold`, and the rule that decided."""
    if re.fullmatch(r"[A-J]", gold) and pred.strip().upper() == gold:
        return Outcome.CORRECT, "letter"
    wanted, found = _readings(gold), _readings(pred)
    if (rule := _same_clock(gold, pred)) is not None:
        return (Outcome.CORRECT if rule else Outcome.WRONG), "clock"
    cap = ""
    for one in wanted:
        for other in found:
            try:
                rule_found = same_answer(one, other, conventions)
            except CapError as error:
                cap = str(error)
                continue
            if rule_found is None:
                continue
            if conventions.reduced == "lowest" and _unreduced(other) and not _unreduced(one):
                return Outcome.WRONG, "unreduced"
            return Outcome.CORRECT, rule_found
    if (not (wanted and found) or _PROSE.search(gold)) and _as_words(gold) == _as_words(pred):
        return Outcome.CORRECT, "words"
    if cap:
        return Outcome.UNPARSABLE, cap
    if not found:
        return Outcome.UNPARSABLE, "not_read"
    if not wanted:
        return Outcome.UNPARSABLE, "gold_not_read"
    return Outcome.WRONG, "compared"


def _unreduced(items: list[Node]) -> bool:
    """Whether a fraction of integers stands there that is not in lowest terms."""
    for part in (part for item in items for part in item.walk() if part.op == "div"):
        top, bottom = (arg.number for arg in part.args)
        if top is not None and bottom is not None and bottom != 0:
            whole = top.denominator == bottom.denominator == 1
            if whole and gcd(top.numerator, bottom.numerator) != 1:
                return True
    return False


def _as_words(text: str) -> str:
    """Texts that are no mathematics are the same when they differ in case and typesetting alone."""
    text = text.replace("\\langle", "<").replace("\\rangle", ">")
    text = strip_typesetting(_TEXT_COMMAND.sub("", text))
    return text.replace("{", "").replace("}", "").casefold()


def _readings(text: str) -> list[list[Node]]:
    """As written; with loose division; with a decimal comma; with letters as units."""
    readings: list[list[Node]] = []
    variants = [(text, False)]
    if "/" in text:
        variants.append((text, True))
    if "log" in text and _LOG.search(text):
        variants.append((_LOG.sub(r"\\lg ", text), False))
    if _DECIMAL_COMMA.fullmatch(text):
        variants.append((text.replace(",", "."), False))
    if (plain := _PLAIN_UNITS.fullmatch(text)) is not None:
        unit = plain[4] or f"{plain[2]}/{plain[3]}"
        if is_unit_formula(unit):
            variants.append((rf"{plain[1]}\text{{ {unit}}}", False))
    for variant, loose in variants:
        try:
            items = read(variant, loose_division=loose)
            reading = [with_divisors(item) for item in items]
        except (NotReadError, CapError):
            continue
        if reading not in readings:
            readings.append(reading)
    return readings


def _same_clock(gold: str, pred: str) -> bool | None:
    """Times of day compared by value, None where one of the two is none.

    "a.m." and "p.m." may be missing on one side, like a unit.
    """
    one, other = (_CLOCK.fullmatch(text) for text in (gold, pred))
    if one is None or other is None:
        return None
    if not all(match[2] or match[4] for match in (one, other)):
        return None
    if not any(match[3] or match[4] for match in (one, other)):
        return None
    apart = abs(_seconds(one) - _seconds(other))
    half_a_day = 12 * 3600
    return apart == 0 or (apart == half_a_day and not (one[4] and other[4]) and _small(one, other))


def _small(*times: re.Match[str]) -> bool:
    """Whether both hours are those of a clock face."""
    return all(int(match[1]) <= 12 for match in times)


def _seconds(match: re.Match[str]) -> int:
    hours, minutes, seconds = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    if match[4]:
        hours = hours % 12 + (12 if match[4][0] in "pP" else 0)
    return hours * 3600 + minutes * 60 + seconds
