"""When a decimal stands for another number: the one rule of rounding, on exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Decimal:
    """A number as written."""

    value: Fraction
    places: int
    """Digits after the point; negative where the last digit shown stands before it (1.27e30)."""
    exact: bool
    """Whether the writing is exact by nature (integer, fraction); a decimal may be rounded."""


def significant_digits(number: Decimal) -> int:
    """Digits shown from the first that is not zero."""
    return len(str(abs(int(number.value * Fraction(10) ** number.places))).lstrip("0"))


def stands_for(shown: Decimal, value: Fraction, min_digits: int, *, truncated: bool = True) -> bool:
    """Whether the decimal `shown` is `value` rounded (or truncated) to the places it shows.

    >>> stands_for(Decimal(Fraction(3333, 10000), 4, exact=False), Fraction(1, 3), 4)
    True
    """
    if shown.exact or min_digits == 0 or significant_digits(shown) < min_digits:
        return False
    if shown.value.denominator == 1 and shown.places >= 0:
        return False
    if truncated and _towards_zero(value, shown.places) == shown.value:
        return True
    return abs(shown.value - value) * 2 <= 1 / Fraction(10) ** shown.places


def _towards_zero(value: Fraction, places: int) -> Fraction:
    scale = Fraction(10) ** places
    return int(value * scale) / scale


def same_number(gold: Decimal, pred: Decimal, min_digits: int) -> bool:
    """Equality of two written numbers: exact, or one is the other rounded to what it shows.

    Two decimals with the same number of places are equal only when they are identical; the shorter
    of two must be the longer one rounded, as 15.17 is no 15.176.
    """
    if gold.value == pred.value:
        return True
    if gold.exact and pred.exact:
        return False
    if gold.exact:
        return stands_for(pred, gold.value, min_digits)
    if pred.exact:
        return stands_for(gold, pred.value, min_digits)
    if gold.places == pred.places:
        return False
    shorter, longer = (gold, pred) if gold.places < pred.places else (pred, gold)
    return stands_for(shorter, longer.value, min_digits, truncated=False)
