"""Rollout engines and training ranks take turns on the GPUs; the GPUs here exist in Ray's books."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.recipes.recipe import Resources
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.rollout.pool import RolloutPool, acquire_pool, close_pools
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.store import Store
from still_core.train import TrainResources
from still_core.train.scoring import score_responses
from still_core.verify import VerifierPool
from tasks.engines import ask_teacher, make_room

pytestmark = pytest.mark.integration

ENGINE = EngineRecipe(kind="transformers", max_model_len=64)
ON_GPU = Resources(train=TrainResources(num_ranks=1, gpus_per_rank=1))
ON_CPU = Resources(train=TrainResources(num_ranks=1, gpus_per_rank=0))


@pytest.fixture(scope="module", autouse=True)
def ray_with_a_gpu_on_paper() -> Iterator[None]:
    ray.shutdown()  # an earlier test's
    ray.init(num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def no_engine_stays() -> Iterator[None]:
    yield
    close_pools()


def engine_at_work(model: Path, *, gpus: float) -> tuple[RolloutPool, int]:
    """A pool that has answered once, and the process of its one actor."""
    pool = acquire_pool(model, ENGINE, RolloutResources(num_actors=1, gpus_per_actor=gpus))
    request = RolloutRequest(
        problem_id="p",
        problem_digest="p",
        prompt="1+1",
        prompt_digest="plain",
        policy_digest=pool.policy_digest,
        policy_version=0,
        sampling=Sampling(max_tokens=2),
        sample_index=0,
        seed=1,
        engine_build=pool.engine_build,
    )
    assert len(list(pool.generate([request]))) == 1
    (worker,) = pool.health()
    return pool, worker.pid


def a_rank_finds_its_gpu(wait_s: float) -> bool:
    group = ray.util.placement_group([{"CPU": 1, "GPU": 1}])
    try:
        return bool(group.wait(wait_s))
    finally:
        ray.util.remove_placement_group(group)


def test_an_engine_on_a_gpu_is_gone_before_ranks_ask_for_it(tiny_model_dir: Path) -> None:
    _, engine = engine_at_work(tiny_model_dir, gpus=1)
    make_room(ON_CPU)
    assert psutil.pid_exists(engine)
    assert not a_rank_finds_its_gpu(1)
    make_room(ON_GPU)
    assert a_rank_finds_its_gpu(30)
    assert not psutil.pid_exists(engine)


def test_an_engine_on_cpu_stays_warm_beside_ranks_on_gpus(tiny_model_dir: Path) -> None:
    pool, engine = engine_at_work(tiny_model_dir, gpus=0)
    make_room(ON_GPU)
    assert a_rank_finds_its_gpu(30)
    assert psutil.pid_exists(engine)
    assert [worker.pid for worker in pool.health()] == [engine]


def test_a_local_teacher_takes_the_gpus_of_the_runs_own_engines(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    _, engine = engine_at_work(tiny_model_dir, gpus=1)
    teacher = Teacher(name="mine", kind="local", source=str(tiny_model_dir))
    rollout = RolloutResources(
        num_actors=1, gpus_per_actor=1, start_deadline_s=30, max_restarts=0, max_num_seqs=4
    )
    problem = Problem(
        id="p/1",
        statement="1+1",
        gold="2",
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.NORMAL_MATH,
        source="p",
        row=1,
    )
    with VerifierPool() as verifier:
        responses = ask_teacher(
            Store(tmp_path),
            teacher,
            DistilRecipe(teachers=(teacher,), max_tokens=4),
            [problem],
            ENGINE,
            verifier,
            Resources(rollout=rollout),
            seed=0,
        )
    assert [response.problem.id for response in responses] == ["p/1"]
    assert not psutil.pid_exists(engine)


def test_perplexities_on_ranks_with_gpus_are_those_of_this_process(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    model = store.publish_dir("model", "1", tiny_model_dir)
    rows = [[7 + (3 * i + j) % 60 for j in range(5 + i)] for i in range(7)]
    heard: list[int] = []
    found = [
        score_responses(
            store,
            model,
            rows,
            [2] * 7,
            dtype="float32",
            resources=resources.train,
            progress=lambda progress: heard.append(progress.done),
        )
        for resources in (ON_CPU, ON_GPU)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert heard[-1] == 7
