"""Pairs written by hand, whose verdict was settled by thought: how answers are really written.

Percent, units, money, mixed numbers, scientific notation, intervals, conditions, sets, tuples,
equations, plus-minus, bases, matrices, words, times, wrappers, sentences, hedges.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from still_core.verify import Answer, Conventions, Outcome
from still_core.verify.judging import judge_math
from still_core.verify.preparation import prepare

with Path(__file__).with_name("hard_conventions.csv").open(encoding="utf-8") as lines:
    PAIRS = [(row["gold"], row["pred"], row["verdict"] == "same") for row in csv.DictReader(lines)]


@pytest.mark.parametrize(("gold", "pred", "same"), PAIRS)
def test_a_hard_convention_is_read_as_a_person_would(gold: str, pred: str, same: bool) -> None:
    conventions = Conventions()
    prepared = prepare(Answer(id="x", gold=gold, pred=pred), conventions)
    outcome, _ = prepared.settled or judge_math(
        prepared.gold, prepared.extracted or "", conventions
    )
    assert (outcome is Outcome.CORRECT) is same
