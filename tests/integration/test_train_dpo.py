"""DPO as a Ray job: one rank, a killed rank, two ranks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from still_core.progress import Progress
from still_core.store import Handle, Store
from still_core.train import DpoJob, DpoRecipe, TrainResources, train

pytestmark = pytest.mark.integration

RECIPE = DpoRecipe(
    dtype="float32",
    gradient_checkpointing=False,
    batch_size=8,
    epochs=2,
    learning_rate=1e-4,
    sft_weight=0.2,
    max_length=400,
)
RESOURCES = TrainResources(threads_per_rank=1, micro_batch_tokens=1_000, checkpoint_every=2)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.shutdown()  # an earlier test's
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def pairs(store: Store) -> Handle:
    rng = random.Random(0)

    def response(digit: str) -> str:
        return (
            f"<|begin_of_thought|>\n{digit * rng.randint(1, 20)}\n<|end_of_thought|>\n\n"
            f"<|begin_of_solution|>\n{digit * rng.randint(1, 5)}\n<|end_of_solution|><|im_end|>"
        )

    rows = [
        {
            "id": f"p{i}",
            "prompt_text": f"<|im_start|>user\n{'1+' * rng.randint(1, 20)}2<|im_end|>\n",
            "chosen_text": response("7"),
            "rejected_text": response("8"),
        }
        for i in range(32)
    ]
    return store.publish_table("pairs", "v1", rows)


def metrics(store: Store, model: Handle) -> list[dict[str, float]]:
    lines = store.read_bytes(model, "metrics.jsonl").decode().splitlines()
    return [json.loads(line) for line in lines]


def kill_once_at(step: int) -> tuple[list[int], object]:
    killed: list[int] = []

    def listen(progress: Progress) -> None:
        if progress.stage == "train" and progress.done >= step and not killed:
            killed.append(progress.done)
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::TrainingR"):
                    process.kill()

    return killed, listen


def test_dpo_survives_a_kill_bit_for_bit_and_agrees_on_two_ranks(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    store = Store(tmp_path / "store")

    def job(name: str, **resources: int) -> DpoJob:
        return DpoJob(
            model=tiny_model_dir,
            pairs=pairs(store),
            prompt="bare",
            dpo=RECIPE,
            seed=3,
            name=name,
            version="v1",
            resources=RESOURCES.model_copy(update=resources),
        )

    heard: list[Progress] = []
    undisturbed = train(job("plain"), store, progress=heard.append)
    assert {progress.stage for progress in heard} == {"reference", "train"}
    curve = metrics(store, undisturbed)
    assert len(curve) == 8
    assert curve[-1]["rewards/accuracies"] > curve[0]["rewards/accuracies"]
    assert curve[-1]["loss"] < curve[0]["loss"]

    killed, listen = kill_once_at(5)
    again = train(job("killed"), store, progress=listen)  # type: ignore[arg-type]
    assert killed
    assert again.digest == undisturbed.digest

    two = train(job("two", num_ranks=2), store)
    assert_alike(metrics(store, two), curve)


def assert_alike(curve: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    """Every figure of every step. The first step's rate is 0, so in the first two the policy is the
    reference, and which reward is higher is rounding."""
    for one, other in zip(curve, expected, strict=True):
        left_out = {"rewards/accuracies"} if one["step"] <= 2 else set[str]()
        assert {k: v for k, v in one.items() if k not in left_out} == pytest.approx(
            {k: v for k, v in other.items() if k not in left_out}, rel=1e-4, abs=1e-5
        )


def test_ranks_with_unequal_numbers_of_pairs_agree_with_one_rank(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    # Without the NLL term a forward holds several pairs; steps of 31 and of 1 divide unevenly, and
    # one of two ranks has none of the latter.
    recipe = RECIPE.model_copy(update={"sft_weight": 0.0, "batch_size": 31})
    store = Store(tmp_path / "store")
    curves = []
    for num_ranks in (1, 2):
        resources = RESOURCES.model_copy(update={"num_ranks": num_ranks, "max_failures": 0})
        job = DpoJob(
            model=tiny_model_dir,
            pairs=pairs(store),
            prompt="bare",
            dpo=recipe,
            seed=3,
            name=f"ranks-{num_ranks}",
            version="v1",
            resources=resources,
        )
        curves.append(metrics(store, train(job, store)))
    assert_alike(curves[1], curves[0])
