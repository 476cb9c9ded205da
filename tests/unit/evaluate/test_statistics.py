"""Intervals and paired tests, against scipy and numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from still_core.errors import DataError
from still_core.evaluate.intervals import wilson
from still_core.evaluate.paired import mcnemar, paired_test, two_sided_sign_p


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipys_interval(counts: tuple[int, int]) -> None:
    correct, n = counts
    ours = wilson(correct, n)
    oracle = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert ours.low == pytest.approx(oracle.low, abs=1e-12)
    assert ours.high == pytest.approx(oracle.high, abs=1e-12)
    assert 0 <= ours.low <= ours.accuracy <= ours.high <= 1


def test_wilson_keeps_a_width_where_nothing_is_solved() -> None:
    # z^2 / (n + z^2) with z^2 = 3.8415: 3.8415 / 33.8415 = 0.11351.
    none = wilson(0, 30)
    assert (none.accuracy, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.11351, abs=1e-5)
    assert wilson(30, 30).low == pytest.approx(1 - 0.11351, abs=1e-5)
    assert wilson(30, 30).high == 1.0


def test_wilson_of_fourteen_of_thirty_aime_problems() -> None:
    # STILL-2's 46.7 on AIME: 14 of 30 is anything between 30 and 64 percent.
    interval = wilson(14, 30)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.302, 0.639)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(DataError):
        wilson(correct, n)


@given(st.integers(0, 300), st.integers(0, 300))
def test_sign_test_equals_scipys_binomial_test(gained: int, lost: int) -> None:
    changed = gained + lost
    oracle = binomtest(gained, changed, 0.5).pvalue if changed else 1.0
    assert two_sided_sign_p(gained, lost) == pytest.approx(oracle, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    # 6 gained, 1 lost: 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128.
    before = [False] * 6 + [True] + [True, True, False]
    after = [True] * 6 + [False] + [True, True, False]
    assert mcnemar(before, after) == 0.125
    assert mcnemar(after, before) == 0.125


def test_mcnemar_of_equal_models_is_one() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([True, False], [False, True]) == 1.0


def test_mcnemar_of_huge_counts_neither_overflows_nor_is_negative() -> None:
    assert 0.0 <= two_sided_sign_p(40_000, 10) < 1e-300
    assert two_sided_sign_p(20_000, 20_000) == 1.0


def test_mcnemar_refuses_unmatched_answers() -> None:
    with pytest.raises(DataError, match="paired_test"):
        mcnemar([True], [True, False])


def test_paired_test_matches_by_problem_id() -> None:
    test = paired_test({"a": 0, "b": 0, "c": 1, "only before": 1}, {"c": 1, "b": 1, "a": 1, "x": 0})
    assert (test.gained, test.lost, test.tied) == (2, 0, 1)
    assert test.p == 0.5


def test_paired_test_counts_a_problem_once_however_many_samples_it_has() -> None:
    test = paired_test({"a": 0.25, "b": 0.5}, {"a": 0.75, "b": 0.5})
    assert (test.gained, test.lost, test.tied, test.p) == (1, 0, 1, 1.0)


def test_paired_test_refuses_disjoint_problems() -> None:
    with pytest.raises(DataError, match="in common"):
        paired_test({"a": 1}, {"b": 1})
