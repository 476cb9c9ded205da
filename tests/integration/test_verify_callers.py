"""The pool from a Ray actor."""

from __future__ import annotations

import tempfile

import pytest

from still_core.verify import Answer, VerifierPool

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
