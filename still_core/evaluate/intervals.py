"""The Wilson 95 % interval of a share.

correct, n -> Interval. E. B. Wilson (1927), "Probable inference, the law of succession, and
statistical inference", JASA 22: it stays inside [0, 1] and keeps its coverage at 0 and n correct,
where the normal approximation has width 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from still_core.errors import DataError, explain

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A share with its interval; all but `n` in [0, 1], low <= accuracy <= high."""

    accuracy: float
    low: float
    high: float
    n: int


def wilson(correct: float, n: int) -> Interval:
    """The 95 % Wilson score interval of `correct` out of `n`.

    Args:
        correct: count in [0, n]. A sum of per-problem means (several samples a problem) is allowed:
            a mean in [0, 1] varies at most as much as a coin, so the interval is then too wide,
            never too narrow.
        n: number of independent problems, >= 1.

    Raises:
        DataError: n < 1, or `correct` outside [0, n].
    """
    if n < 1:
        raise DataError(explain("no answers to make an interval of", got=n, expected="n >= 1"))
    if not 0 <= correct <= n:
        raise DataError(explain("impossible number of correct answers", got=correct, expected=n))
    share, z2 = correct / n, Z_95 * Z_95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the bound is exact in theory and off by one ulp in floating point.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return Interval(accuracy=share, low=low, high=high, n=n)
