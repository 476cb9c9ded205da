"""Exploration with every real part: vLLM in a Ray actor, verifier processes, bank in a store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.progress import Progress
from still_core.rollout.bank import RolloutBank
from still_core.rollout.cluster import connect
from still_core.rollout.explore import Exploration, explore
from still_core.rollout.pool import RolloutPool, acquire_pool, close_pools
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Sampling
from still_core.store import Store
from still_core.verify import VerifierPool

pytestmark = pytest.mark.integration

PROBLEMS = [
    Problem(
        id=f"test/{number}",
        statement=f"{number}+1?",
        gold=str(number + 1),
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.NORMAL_MATH,
        source="test",
        row=number,
    )
    for number in range(24)
]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    ours = not ray.is_initialized()
    connect()
    yield
    close_pools()
    if ours:
        ray.shutdown()


@pytest.fixture(scope="module")
def verifier() -> Iterator[VerifierPool]:
    with VerifierPool() as pool:
        yield pool


def acquire(model_dir: Path, *, version: int = 0) -> RolloutPool:
    return acquire_pool(
        model_dir,
        EngineRecipe(kind="vllm", max_model_len=256),
        RolloutResources(max_num_seqs=16, cpus_per_actor=0.1),
        policy_version=version,
    )


def run(
    pool: RolloutPool,
    store: Path,
    verifier: VerifierPool,
    *,
    kill_actor_at: int | None = None,
) -> Exploration:
    struck = False

    def listen(progress: Progress) -> None:
        nonlocal struck
        if kill_actor_at is not None and not struck:
            struck = progress.facts["rollouts"] >= kill_actor_at
            if struck:
                os.kill(pool.health()[0].pid, signal.SIGKILL)

    return explore(
        PROBLEMS,
        pool,
        RolloutBank(Store(store)),
        verifier,
        ExploreRecipe(sampling=Sampling(temperature=1.0, max_tokens=80), max_attempts=10),
        RolloutResources(),
        seed=3,
        round=1,
        prompt="bare",
        progress=listen,
    )


def test_the_loop_draws_banks_resumes_and_repeats_nothing(
    tiny_model_dir: Path, other_tiny_model_dir: Path, tmp_path: Path, verifier: VerifierPool
) -> None:
    pool = acquire(tiny_model_dir)
    undisturbed = run(pool, tmp_path / "a", verifier)
    assert undisturbed.summary()["problems"] == 24
    assert undisturbed.tally.generated_rollouts >= 200

    # The same identity again: nothing is drawn, within seconds, and the result is the same.
    started = time.monotonic()
    again = run(acquire(tiny_model_dir), tmp_path / "a", verifier)
    assert time.monotonic() - started < 10
    assert again.tally.generated_tokens == 0
    assert again.to_rows() == undisturbed.to_rows()

    # The actor dies in mid-generation: the same rollouts come out, each once.
    disturbed = run(pool, tmp_path / "b", verifier, kill_actor_at=1)
    assert sum(worker.restarts for worker in pool.health()) == 1
    assert disturbed.to_rows() == undisturbed.to_rows()
    banked = [rollout.id for rollout in RolloutBank(Store(tmp_path / "b")).scan()]
    assert len(banked) == len(set(banked))

    # New weights in the same engine: other rollouts, labelled with the new policy.
    other = acquire(other_tiny_model_dir, version=1)
    assert other is pool
    changed = run(other, tmp_path / "a", verifier)
    assert changed.tally.banked_rollouts == 0
    rollouts = list(RolloutBank(Store(tmp_path / "a")).scan(round=1))
    assert {rollout.policy_digest for rollout in rollouts} == {other.policy_digest}
    assert len(rollouts) == changed.tally.generated_rollouts
