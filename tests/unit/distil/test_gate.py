"""The last gate: demonstrations of a benchmark's problem train nothing without a waiver."""

from __future__ import annotations

import pytest

from still_core.distil.gate import require_uncontaminated
from still_core.errors import DataError
from still_core.problems.decontaminate import fingerprint_benchmarks
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.recipe import DecontaminateRecipe
from still_core.responses.response import Demonstration, Origin
from still_core.store import Handle, Store

ASKED = "Ann has 3 red marbles and 5 blue marbles. She draws two. What is the chance of two reds?"
OTHER = "A train leaves at noon with 90 km/h and a second one an hour later. When do they meet?"


def a_problem(statement: str) -> Problem:
    return Problem(
        id=f"b/{len(statement)}",
        statement=statement,
        gold="3/28",
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.HARD_MATH,
        source="b",
        row=0,
    )


def a_demonstration(problem: Problem) -> Demonstration:
    return Demonstration(
        id=f"d-{problem.id}",
        problem_id=problem.id,
        problem_digest=problem.digest,
        statement=problem.statement,
        gold=problem.gold,
        kind=str(problem.kind),
        domain=problem.domain,
        bucket=str(problem.bucket),
        level=None,
        thought="Hm.",
        solution="\\boxed{3/28}",
        origin=Origin.DISTILLED,
        author="teacher",
        round=0,
        source_row="teacher:0",
        verdict="correct",
        verifier_version="1",
    )


@pytest.fixture
def store(store_root: str) -> Store:
    return Store(store_root)


@pytest.fixture
def fingerprints(store: Store) -> Handle:
    prints = fingerprint_benchmarks({"marbles": [a_problem(ASKED)]})
    return store.publish_table("fingerprints", "1", [one.to_row() for one in prints])


def test_a_demonstration_of_a_benchmarks_problem_is_refused(
    store: Store, fingerprints: Handle
) -> None:
    rows = [a_demonstration(a_problem(text)) for text in (OTHER, ASKED.upper())]
    with pytest.raises(DataError, match=r"benchmark problems in the training data.*marbles 1 of 1"):
        require_uncontaminated(store, rows, fingerprints, DecontaminateRecipe())


def test_what_a_waiver_lets_pass_is_told_with_its_words(store: Store, fingerprints: Handle) -> None:
    rows = [a_demonstration(a_problem(text)) for text in (OTHER, ASKED)]
    gate = DecontaminateRecipe(waiver="Ann: a test of the gate")
    passed = require_uncontaminated(store, rows, fingerprints, gate)
    assert [(one.num_found, one.num_training) for one in passed.benchmarks] == [(1, 1)]
    assert passed.waiver == "Ann: a test of the gate"


def test_data_without_overlap_pass_and_need_no_waiver(store: Store, fingerprints: Handle) -> None:
    gate = DecontaminateRecipe(waiver="Ann: not needed")
    passed = require_uncontaminated(store, [a_demonstration(a_problem(OTHER))], fingerprints, gate)
    assert passed.waiver == ""
    assert passed.to_rows()[0]["share"] == 0
