"""SFT as a Ray job through TRL: what comes out, what it costs to interrupt it, what it refuses."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from still_core.errors import ConflictError, TrainingError
from still_core.progress import Progress
from still_core.store import Store
from still_core.store.handle import Handle
from still_core.train import SftJob, SftRecipe, TrainResources, launch, train
from still_core.train.checkpoint import SHARD_FILE, checkpoint_version
from still_core.train.launch import end_ranks

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def local_ray(s3_server: object) -> Iterator[None]:
    # After the S3 server: Ray's workers take its address from the environment of this process.
    ray.shutdown()  # an earlier test's
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


RECIPE = SftRecipe(
    dtype="float32",
    gradient_checkpointing=False,
    batch_size=16,
    epochs=3,
    learning_rate=1e-3,
    max_length=120,
)
RESOURCES = TrainResources(threads_per_rank=1, micro_batch_tokens=500, checkpoint_every=4)
SLOW = RESOURCES.model_copy(update={"micro_batch_tokens": 40, "checkpoint_every": 2})
"""A row at a time: steps are heard of before many more are done."""
LONG = RECIPE.model_copy(update={"epochs": 5})
"""20 steps: what happens at step 7 happens well before the end."""


def demonstrations(store: Store, *, num_rows: int = 60) -> Handle:
    rng = random.Random(0)
    rows = [
        {
            "id": f"d{i}",
            "prompt_text": f"<|im_start|>user\nadd {'1+' * rng.randint(1, 20)}2<|im_end|>\n",
            "completion_text": f"the answer is {'9' * rng.randint(1, 40)}<|im_end|>",
        }
        for i in range(num_rows)
    ]
    return store.publish_table("demos", "v1", rows)


def sft_job(store: Store, model: Path, **changes: object) -> SftJob:
    fields: dict[str, object] = {
        "model": model,
        "demonstrations": demonstrations(store),
        "prompt": "bare",
        "sft": RECIPE,
        "seed": 7,
        "name": "models/m1",
        "version": "v1",
        "resources": RESOURCES,
    }
    return SftJob(**{**fields, **changes})  # type: ignore[arg-type]


class Trained(NamedTuple):
    """What a job made, undisturbed and in a fresh process."""

    store: Store
    model: Handle
    heard: list[Progress]

    @classmethod
    def by(cls, folder: Path, model: Path, **changes: object) -> Trained:
        store, heard = Store(folder), list[Progress]()
        job = sft_job(store, model, **changes)
        return cls(store, train(job, store, progress=heard.append), heard)


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained.by(tmp_path_factory.mktemp("trained"), tiny_model_dir)


@pytest.fixture(scope="module")
def trained_long(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained-long")
    return Trained.by(folder, tiny_model_dir, sft=LONG, resources=SLOW)


def losses(store: Store, model: Handle) -> list[float]:
    lines = store.read_bytes(model, "metrics.jsonl").decode().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_sft_publishes_a_model_that_has_learnt_and_that_transformers_loads(
    trained: Trained,
) -> None:
    store, model, heard = trained
    assert [p.done for p in heard] == list(range(1, 13))
    assert heard[-1].total == 12
    assert {"loss", "tokens_per_s"} <= set(heard[-1].facts)
    curve = losses(store, model)
    assert curve[-1] < 0.4 * curve[0]
    folder = store.fetch(model)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.chat_template
    assert loaded.dtype == torch.float32
    assert not list(folder.glob("*.bin"))
    record = json.loads((folder / "training.json").read_text())
    assert (record["rows"], record["dropped"], record["steps"]) == (60, {}, 12)


def test_the_same_job_gives_the_same_bytes_and_a_second_call_trains_nothing(
    trained: Trained, store: Store, tiny_model_dir: Path
) -> None:
    again = train(sft_job(store, tiny_model_dir, version="v2"), store)
    assert again.digest == trained.model.digest
    heard: list[Progress] = []
    job = sft_job(trained.store, tiny_model_dir)
    assert train(job, trained.store, progress=heard.append) == trained.model
    assert heard == []


def test_a_rank_that_stayed_up_trains_the_next_job_to_the_same_bytes(
    trained: Trained, store: Store, tiny_model_dir: Path
) -> None:
    try:
        train(sft_job(store, tiny_model_dir, seed=8, version="v2"), store, keep_rank=True)
        (waiting,) = rank_processes()
        again = train(sft_job(store, tiny_model_dir, version="v3"), store, keep_rank=True)
        assert rank_processes() == [waiting]
        assert again.digest == trained.model.digest
        waiting.kill()
        other = train(sft_job(store, tiny_model_dir, version="v4"), store, keep_rank=True)
        assert other.digest == trained.model.digest
    finally:
        end_ranks()
    assert psutil.wait_procs(rank_processes(), timeout=10)[1] == []


def test_another_job_under_the_same_name_is_refused(trained: Trained, tiny_model_dir: Path) -> None:
    with pytest.raises(ConflictError, match="made by another job"):
        train(sft_job(trained.store, tiny_model_dir, seed=8), trained.store)


def rank_processes() -> list[psutil.Process]:
    """The training ranks of this test's own Ray cluster."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::TrainingR")
    ]


class KillAt:
    """A listener that kills one rank soon after a step is reported, once per entry of `steps`."""

    def __init__(self, *steps: int, seed: int = 0, delay_s: float = 0.0) -> None:
        self.steps, self.rng, self.heard = list(steps), random.Random(seed), [0]
        self.delay_s = delay_s

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress.done)
        if self.steps and progress.done >= self.steps[0]:
            self.steps.pop(0)
            time.sleep(self.rng.uniform(0, self.delay_s))
            self.rng.choice(rank_processes()).kill()


def test_a_killed_rank_goes_on_from_the_checkpoint_and_ends_with_the_same_bytes(
    trained_long: Trained, store_root: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    store = Store(store_root, cache=tmp_path / "cache")
    killer = KillAt(3, 7)
    job = sft_job(store, tiny_model_dir, name="models/killed", sft=LONG, resources=SLOW)
    model = train(job, store, progress=killer)
    assert not killer.steps
    assert killer.heard[-1] == 20
    assert killer.heard.count(1) == 1, "it went on from a checkpoint and not from the start"
    assert model.digest == trained_long.model.digest


def test_only_the_newest_checkpoints_stay_while_a_job_trains_and_none_after_it(
    store: Store, tiny_model_dir: Path
) -> None:
    killer = KillAt(7)
    resources = SLOW.model_copy(update={"keep_checkpoints": 1, "max_failures": 0})
    job = sft_job(store, tiny_model_dir, sft=LONG, resources=resources)
    with pytest.raises(TrainingError, match="a rank died"):
        train(job, store, progress=killer)
    whole = store.versions(job.checkpoints_name())
    assert len(whole) in (1, 2), "the newest, and one that was about to be forgotten"
    parts = store.list(f"{job.checkpoints_name()}/")
    assert min([*whole, *(part.version for part in parts)]) >= checkpoint_version(4)
    try:
        model = train(job, store, keep_rank=True)
        assert store.list(job.checkpoints_name()) == []

        weights = store.manifest(model).objects["model.safetensors"]
        store.backend.delete(weights.key)
        again = train(job, store, keep_rank=True)
    finally:
        end_ranks()
    assert again.digest == model.digest
    assert store.exists(again), "a model that lost a file is made anew"


def test_a_shard_that_a_rank_finds_damaged_is_passed_over_for_the_checkpoint_before_it(
    store: Store, tiny_model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resources = SLOW.model_copy(update={"max_failures": 0})
    job = sft_job(store, tiny_model_dir, sft=LONG, resources=resources)
    with pytest.raises(TrainingError, match="a rank died"):
        train(job, store, progress=KillAt(7))
    *_, before, newest = store.versions(job.checkpoints_name())
    (part,) = (
        one for one in store.list(f"{job.checkpoints_name()}/parts/") if one.version == newest
    )
    shard = Path(store.root) / store.manifest(part).objects[SHARD_FILE].key
    shard.chmod(0o644)
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    heard = KillAt()
    train(job, store, progress=heard)

    assert f"{newest} is not used" in caplog.text
    assert f"{shard.name} is damaged" in caplog.text
    assert heard.heard[1] == int(before.split("-")[1]) + 1


def test_two_ranks_and_a_change_of_ranks_agree_with_one_rank(
    trained: Trained, store: Store, tiny_model_dir: Path
) -> None:
    two_ranks = SLOW.model_copy(update={"num_ranks": 2, "max_failures": 0})
    # The first steps of one job and the last of the other are done by two ranks.
    for first, then in ((2, 1), (1, 2)):
        name = f"models/{first}to{then}"
        begun = two_ranks.model_copy(update={"num_ranks": first})
        with pytest.raises(TrainingError, match=r"failed, attempt 1: got .a rank (died|failed)"):
            train(
                sft_job(store, tiny_model_dir, name=name, resources=begun),
                store,
                progress=KillAt(5),
            )
        heard = KillAt()
        ended = begun.model_copy(update={"num_ranks": then})
        model = train(
            sft_job(store, tiny_model_dir, name=name, resources=ended), store, progress=heard
        )
        assert heard.heard[1] in {3, 5, 7, 9}, "it went on from the checkpoint of the other ranks"
        assert losses(store, model) == pytest.approx(losses(trained.store, trained.model), abs=1e-5)


def test_a_frozen_rank_is_named_and_ended_and_the_job_goes_on(
    store: Store,
    tiny_model_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "DEATH_NOTICE_S", 4.0)  # which is waited for in vain here
    resources = SLOW.model_copy(update={"num_ranks": 2, "stall_timeout_s": 3.0})
    frozen: list[int] = []

    def freeze(progress: Progress) -> None:
        if progress.done >= 5 and not frozen:
            process = max(rank_processes(), key=lambda one: one.pid)
            process.suspend()
            frozen.append(process.pid)

    model = train(sft_job(store, tiny_model_dir, resources=resources), store, progress=freeze)
    assert len(losses(store, model)) == 12
    assert re.search(rf"no step for 3 s: .*\(pid {frozen[0]} on \S+\) does not answer", caplog.text)
    assert re.search(r"rank \d \(pid \d+ on \S+\) in \w+ \(\w+\.py:\d+\)", caplog.text)
    assert not psutil.pid_exists(frozen[0])


TWO_RANKS = SLOW.model_copy(update={"num_ranks": 2, "checkpoint_every": 1, "max_failures": 6})
"""A checkpoint after every step: most kills fall into a save."""


@pytest.fixture(scope="module")
def trained_on_two_ranks(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("two-ranks")
    return Trained.by(folder, tiny_model_dir, resources=TWO_RANKS)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(10))
def test_sixty_kills_of_two_ranks_leave_the_loss_curve_as_it_was(
    seed: int, store: Store, tiny_model_dir: Path, trained_on_two_ranks: Trained
) -> None:
    steps = sorted(random.Random(seed).sample(range(1, 12), k=6))
    killer = KillAt(*steps, seed=seed, delay_s=0.4)
    model = train(sft_job(store, tiny_model_dir, resources=TWO_RANKS), store, progress=killer)
    assert not killer.steps, "six kills"
    undisturbed, expected = trained_on_two_ranks.store, trained_on_two_ranks.model
    assert losses(store, model) == pytest.approx(losses(undisturbed, expected), abs=1e-6)
    assert model.digest == expected.digest


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(10))
def test_a_kill_and_another_number_of_ranks_leave_the_loss_curve_within_rounding(
    seed: int, store: Store, tiny_model_dir: Path, trained_long: Trained
) -> None:
    first, then = ((2, 1), (1, 2))[seed % 2]
    killer = KillAt(random.Random(seed).randrange(2, 10), seed=seed, delay_s=0.4)
    begun = TWO_RANKS.model_copy(update={"num_ranks": first, "max_failures": 0})
    with pytest.raises(TrainingError, match=r"a rank (died|failed)"):
        train(sft_job(store, tiny_model_dir, sft=LONG, resources=begun), store, progress=killer)
    ended = TWO_RANKS.model_copy(update={"num_ranks": then})
    heard = KillAt()
    job = sft_job(store, tiny_model_dir, sft=LONG, resources=ended)
    model = train(job, store, progress=heard)
    assert heard.heard[1] > 1, "it went on from a checkpoint"
    expected = losses(trained_long.store, trained_long.model)
    assert losses(store, model) == pytest.approx(expected, abs=1e-5)
