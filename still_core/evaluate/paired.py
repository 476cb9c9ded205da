"""Exact paired tests: did one model beat another on the same problems?

(problem id -> score) before, after -> PairedTest. Q. McNemar (1947), Psychometrika 12, in its exact
binomial form: of the problems whose result changed, how likely is a split this uneven by chance?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from still_core.errors import DataError, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """Counts over the problems that both models answered."""

    gained: int
    """Problems on which the later model does better."""
    lost: int
    """Problems on which it does worse."""
    tied: int
    p: float
    """Two-sided, in (0, 1]; 1 where nothing changed."""


def two_sided_sign_p(gained: int, lost: int) -> float:
    """P of a split at least this uneven among `gained + lost` fair coins, both sides; in (0, 1].

    Exact integer arithmetic; the last step alone rounds.
    """
    changed = gained + lost
    # C(n, k) from C(n, k-1): `math.comb` afresh for each k takes minutes at 1e4 problems.
    ways = tail = 1
    for k in range(1, min(gained, lost) + 1):
        ways = ways * (changed - k + 1) // k
        tail += ways
    return min(1.0, 2 * tail / (1 << changed))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value of two models on the same problems, item by item.

    Raises:
        DataError: the sequences differ in length; match them by id with `paired_test` instead.
    """
    if len(before) != len(after):
        raise DataError(
            explain(
                "a paired test needs the same problems on both sides",
                got=(len(before), len(after)),
                expected="equal lengths",
                remedy="match them by problem id with paired_test",
            )
        )
    gained = sum(1 for old, new in zip(before, after, strict=True) if new and not old)
    lost = sum(1 for old, new in zip(before, after, strict=True) if old and not new)
    return two_sided_sign_p(gained, lost)


def paired_test(before: Mapping[str, float], after: Mapping[str, float]) -> PairedTest:
    """The exact sign test over the problems in both mappings.

    Args:
        before: score in [0, 1] by problem id. With one sample a problem the scores are 0 or 1 and
            the test is exact McNemar; with several they are means and a problem counts once.
        after: the later model's scores.

    Raises:
        DataError: no problem in common.
    """
    common = before.keys() & after.keys()
    if not common:
        raise DataError(explain("two evaluations have no problem in common"))
    gained = sum(1 for problem in common if after[problem] > before[problem])
    lost = sum(1 for problem in common if after[problem] < before[problem])
    tied = len(common) - gained - lost
    return PairedTest(gained=gained, lost=lost, tied=tied, p=two_sided_sign_p(gained, lost))
