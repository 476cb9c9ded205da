"""The pool from a Ray actor; programs in the real sandbox."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from still_core.problems.problem import AnswerKind
from still_core.verify import Answer, Outcome, VerifierPool

pytestmark = pytest.mark.integration

PAIRS = [(f"x+{n}", f"{n % 5}+x") for n in range(60)] + [("2", "9^{9^{9^9}}"), ("1/2", "0.5")]


def outcomes(pairs: list[tuple[str, str]]) -> list[str]:
    with VerifierPool() as pool:
        answers = [Answer(id="x", gold=gold, pred=pred) for gold, pred in pairs]
        return [str(verdict.outcome) for verdict in pool.verify_many(answers)]


def test_a_ray_actor_with_threads_gets_the_same_verdicts() -> None:
    import ray

    serial = outcomes(PAIRS)
    ray.shutdown()  # an earlier test's
    ray.init(
        num_cpus=2, include_dashboard=False, _temp_dir=tempfile.mkdtemp(prefix="rv", dir="/tmp")
    )
    try:

        class Judge:
            def __init__(self) -> None:
                self.pool = VerifierPool()

            def judge(self, pairs: list[tuple[str, str]]) -> list[str]:
                answers = [Answer(id="x", gold=gold, pred=pred) for gold, pred in pairs]
                return [str(self.pool.verify(answer).outcome) for answer in answers]

        actor = ray.remote(Judge).options(max_concurrency=4).remote()
        found = ray.get([actor.judge.remote(PAIRS) for _ in range(4)], timeout=120)
    finally:
        ray.shutdown()
    assert found == [serial] * 4


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, code_deadline_s=120.0) as pool:
        yield pool


def references(data: Path) -> list[Answer]:
    """HumanEval's and MBPP's own solutions beside their tests."""
    answers = []
    with gzip.open(data / "HumanEval.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            tests = [f"{row['test']}\ncheck({row['entry_point']})\n"]
            gold = json.dumps({"prelude": "from typing import *\n", "tests": tests})
            source = row["prompt"] + row["canonical_solution"]
            answers.append(code_answer(row["task_id"], gold, source))
    with (data / "mbpp_test.jsonl").open() as lines:
        for row in map(json.loads, lines):
            gold = json.dumps({"tests": row["test"]})
            answers.append(code_answer(f"mbpp/{row['task_id']}", gold, row["code"]))
    return answers


def code_answer(name: str, gold: str, source: str) -> Answer:
    return Answer(id=name, gold=gold, pred=f"```python\n{source}\n```", kind=AnswerKind.CODE)


def mutated(answer: Answer) -> Answer:
    """The same program whose functions return something else, wrapped so that all cases differ."""
    names = re.findall(r"^def (\w+)\(", answer.pred, re.MULTILINE)
    wrapped = "".join(
        f"\n_was_{n} = {n}\ndef {n}(*a, **k):\n    v = _was_{n}(*a, **k)\n"
        "    return (not v) if isinstance(v, bool) else [v, 'mutated']\n"
        for n in names
    )
    return Answer(
        id=answer.id, gold=answer.gold, pred=answer.pred[:-4] + wrapped + "\n```", kind=answer.kind
    )


def test_reference_solutions_are_correct_and_mutated_ones_wrong(
    shared_data: Path, pool: VerifierPool
) -> None:
    answers = references(shared_data)[::12]
    assert [
        a.id
        for a, v in zip(answers, pool.verify_many(answers), strict=True)
        if v.outcome is not Outcome.CORRECT
    ] == []
    verdicts = pool.verify_many([mutated(answer) for answer in answers])
    assert [v.outcome for v in verdicts if v.outcome is Outcome.CORRECT] == []


@pytest.mark.slow
def test_all_reference_solutions_are_correct_and_mutated_ones_wrong(
    shared_data: Path, pool: VerifierPool
) -> None:
    answers = references(shared_data)
    wrong = [
        a.id
        for a, v in zip(answers, pool.verify_many(answers), strict=True)
        if v.outcome is not Outcome.CORRECT
    ]
    assert wrong == []
    verdicts = pool.verify_many([mutated(answer) for answer in answers])
    assert sum(v.outcome is Outcome.CORRECT for v in verdicts) == 0


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def f(x):\n    return x * x", Outcome.CORRECT),
        ("def f(x):\n    return x + x", Outcome.WRONG),
        ("def f(x)\n    return", Outcome.WRONG),
        ("def f(x):\n    while True: pass", Outcome.TIMEOUT),
        (
            "class Yes:\n    def __eq__(self, o): return True\ndef f(x):\n    return Yes()",
            Outcome.WRONG,
        ),
        ("import os\ndef f(x):\n    os._exit(0)", Outcome.WRONG),
        ("import sys\nsys.exit(0)", Outcome.WRONG),
        ('print(\'{"failed": ""}\')\ndef f(x):\n    return 0', Outcome.WRONG),
        ("AssertionError = int\ndef f(x):\n    raise SystemExit(0)", Outcome.WRONG),
    ],
)
def test_a_program_is_right_only_by_its_values(source: str, outcome: Outcome) -> None:
    gold = json.dumps(
        {
            "tests": [
                "assert f(2) == 4",
                "assert f(-3) == 9",
                "assert [f(n) for n in range(3)] == [0, 1, 4]",
            ]
        }
    )
    with VerifierPool(code_deadline_s=4.0) as pool:
        assert pool.verify(code_answer("x", gold, source)).outcome is outcome


def test_objects_keep_their_state_and_stdin_programs_are_compared_outside(
    pool: VerifierPool,
) -> None:
    gold = json.dumps({"tests": ["c = Counter2(3)\nc.add(4)\nc.add(5)\nassert c.total() == 12"]})
    source = (
        "class Counter2:\n    def __init__(self, n):\n        self.n = n\n"
        "    def add(self, k):\n        self.n += k\n    def total(self):\n        return self.n"
    )
    assert pool.verify(code_answer("a", gold, source)).outcome is Outcome.CORRECT
    gold = json.dumps({"stdin": [["2 3\n", "5\n"], ["10 -4\n", "6"]]})
    good = code_answer("b", gold, "print(sum(map(int, input().split())))")
    bad = code_answer("c", gold, "print(5)")
    assert [pool.verify(a).outcome for a in (good, bad)] == [Outcome.CORRECT, Outcome.WRONG]
