"""From clean demonstrations to a data set: an empty data set is said at once, with its account."""

from __future__ import annotations

import math

import pytest

from still_core.distil.dataset import build_d0
from still_core.distil.shown import perplexity_histogram
from still_core.errors import DataError
from still_core.refine.recipe import CleanRecipe, MixRecipe
from tests.unit.refine.test_clean_rules import row


def test_a_data_set_of_nothing_is_refused_with_what_each_rule_dropped() -> None:
    with pytest.raises(DataError, match=r"no demonstration is left to train on.*'wrong': 2"):
        build_d0([row(seed, verdict="wrong") for seed in range(2)], CleanRecipe(), MixRecipe())


def test_a_mixture_that_takes_nothing_is_refused_too() -> None:
    # Without filling up, the scarcest bucket sets the size of all: here none of it is there.
    weights = MixRecipe(weights={"hard_math": 1.0, "other": 1.0}, fill=False)
    with pytest.raises(DataError, match=r"no demonstration is left to train on.*mix"):
        build_d0([row(seed) for seed in range(3)], CleanRecipe(), weights)


def test_a_response_of_no_probability_has_a_bin_of_its_own() -> None:
    rows = [{"perplexity": value} for value in (1.0, 2.0, 2.0, math.inf)]
    assert perplexity_histogram(rows) == [
        {"perplexity": "1.00", "candidates": 1},
        {"perplexity": "2.00", "candidates": 2},
        {"perplexity": "inf", "candidates": 1},
    ]
