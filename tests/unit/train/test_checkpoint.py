"""Checkpoints: exact resume in one process, and the exact reason of every refusal."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

from still_core.errors import CheckpointError, CorruptionError, StoreError
from still_core.store import Handle, Store
from still_core.store.manifest import manifest_key
from still_core.train.checkpoint import (
    FORMAT,
    INDEX_FILE,
    PIECES_FILE,
    RNG_FILE,
    SHARD_FILE,
    STATE_FILE,
    Checkpoint,
    DamagedCheckpoint,
    Piece,
    Shards,
    Staged,
    checkpoint_version,
    forget_checkpoints,
    read_checkpoint,
    restore,
    write_shard,
)
from still_core.train.exact import write_metrics
from still_core.train.launch import latest_checkpoint
from still_core.train.recipe import SftRecipe, TrainResources
from still_core.train.rows import TokenRow
from still_core.train.sft import Place, sft_schedule, sft_trainer
from tests.unit.train.test_job import JOB as A_JOB

JOB = "0123456789abcdef"


def rows() -> list[TokenRow]:
    rng = random.Random(0)
    return [
        TokenRow(
            id=str(i),
            prompt_ids=tuple(rng.randrange(7, 100) for _ in range(4)),
            response_ids=tuple(rng.randrange(7, 100) for _ in range(rng.randint(2, 12))),
        )
        for i in range(12)
    ]


class Keeper:
    """Writes every checkpoint to a folder; stops the run after one where asked."""

    def __init__(self, folder: Path, stop_at: int | None = None) -> None:
        self.folder, self.stop_at = folder, stop_at

    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None:
        if metrics["step"] == self.stop_at:
            raise KeyboardInterrupt

    def on_checkpoint(self, step: int, staging: Callable[[], Staged]) -> None:
        write_shard(staging(), self.folder / f"step-{step}")


class LateKeeper(Keeper):
    """Writes a checkpoint once the step after it was taken, as a rank's thread may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.waiting: list[tuple[int, Staged]] = []

    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None:
        while self.waiting:
            step, staged = self.waiting.pop()
            write_shard(staged, self.folder / f"step-{step}")

    def on_checkpoint(self, step: int, staging: Callable[[], Staged]) -> None:
        self.waiting.append((step, staging()))


def train(
    model_dir: Path, tmp: Path, keeper: Keeper, resume: Path | None = None, dropout: float = 0.0
) -> Any:
    trainer = ready(model_dir, tmp, keeper, resume, dropout)
    trainer.train()
    return trainer


def ready(
    model_dir: Path, tmp: Path, keeper: Keeper, resume: Path | None, dropout: float = 0.0
) -> Any:
    recipe = SftRecipe(
        dtype="float32", gradient_checkpointing=False, batch_size=4, epochs=3, learning_rate=1e-3
    )
    place = Place(rank=0, num_ranks=1, resources=TrainResources(checkpoint_every=2))
    schedule = sft_schedule(rows(), recipe, seed=0, place=place, pad_id=0)
    trainer = sft_trainer(
        AutoModelForCausalLM.from_pretrained(model_dir, attention_dropout=dropout),
        AutoTokenizer.from_pretrained(model_dir),
        rows(),
        recipe,
        num_steps=len(schedule.steps),
        seed=0,
        directory=tmp,
        use_cpu=True,
    )
    if resume is not None:
        schedule.resume = opened(resume)
    trainer.follow(schedule, keeper, 0)
    return trainer


@pytest.fixture(scope="module")
def saved(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints after steps 2, 4, 6 and 8 of 9, of an undisturbed run."""
    folder = tmp_path_factory.mktemp("checkpoints")
    trainer = train(tiny_model_dir, folder / "trainer", Keeper(folder))
    save_file(dict(trainer.model.named_parameters()), folder / "end.safetensors")
    (folder / "metrics.json").write_text(json.dumps(trainer.metrics))
    return folder


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resumed_run_ends_with_the_same_bytes_and_the_same_metrics(
    saved: Path, tiny_model_dir: Path, tmp_path: Path, step: int
) -> None:
    trainer = train(tiny_model_dir, tmp_path, Keeper(tmp_path), saved / f"step-{step}")
    end = load_file(saved / "end.safetensors")
    state = dict(trainer.model.named_parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in end.items())
    assert trainer.metrics == json.loads((saved / "metrics.json").read_text())


def test_a_checkpoint_that_is_written_during_the_next_steps_holds_none_of_them(
    saved: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    train(tiny_model_dir, tmp_path / "trainer", LateKeeper(tmp_path))
    for step in (2, 4, 6, 8):
        for name in (SHARD_FILE, PIECES_FILE, RNG_FILE, STATE_FILE):
            late = tmp_path / f"step-{step}" / name
            assert late.read_bytes() == (saved / f"step-{step}" / name).read_bytes()
    resumed = train(tiny_model_dir, tmp_path / "again", Keeper(tmp_path), tmp_path / "step-4")
    assert resumed.metrics == json.loads((saved / "metrics.json").read_text())


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_a_step_without_finite_figures_is_null_with_and_without_a_resume(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    compute_loss = SFTTrainer.compute_loss

    def poison(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(self, *args, **kwargs)
        return loss * factor if self.state.global_step == 2 else loss

    monkeypatch.setattr(SFTTrainer, "compute_loss", poison)
    whole = train(tiny_model_dir, tmp_path / "trainer", Keeper(tmp_path))
    resumed = train(tiny_model_dir, tmp_path / "again", Keeper(tmp_path), tmp_path / "step-4")
    assert [row["skipped"] for row in whole.metrics] == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert [row["step"] for row in whole.metrics if row["loss"] is None] == [3]
    assert [row["step"] for row in whole.metrics if row["grad_norm"] is None] == [3]
    assert resumed.metrics == whole.metrics
    for number, trainer in enumerate((whole, resumed)):
        write_metrics(trainer.metrics, tmp_path / f"metrics-{number}")
    text = (tmp_path / "metrics-0").read_text()
    assert text == (tmp_path / "metrics-1").read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert lines == whole.metrics
    state = (tmp_path / "step-4" / STATE_FILE).read_text()
    assert json.loads(state, parse_constant=refuse)["metrics"] == whole.metrics[:4]


def test_an_interrupted_run_leaves_the_checkpoints_of_an_undisturbed_one(
    saved: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model_dir, tmp_path / "trainer", Keeper(tmp_path, stop_at=5))
    for name in (SHARD_FILE, PIECES_FILE, RNG_FILE, STATE_FILE):
        assert (tmp_path / "step-4" / name).read_bytes() == (saved / "step-4" / name).read_bytes()
    assert not (tmp_path / "step-6").exists()


def test_a_resumed_run_draws_the_random_numbers_of_the_undisturbed_one(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    whole = train(tiny_model_dir, tmp_path / "whole", Keeper(tmp_path), dropout=0.2)
    resumed = train(
        tiny_model_dir, tmp_path / "rest", Keeper(tmp_path / "r"), tmp_path / "step-4", dropout=0.2
    )
    assert resumed.metrics == whole.metrics
    plain = train(tiny_model_dir, tmp_path / "plain", Keeper(tmp_path / "p"))
    assert plain.metrics != whole.metrics, "the dropout draws"


def opened(*folders: Path) -> Shards:
    """A checkpoint of the parts that these folders hold."""
    store = Store(folders[0].parent / f"{folders[0].name}-store")
    parts = [
        store.publish_dir(f"rank-{rank}", uuid.uuid4().hex, folder)
        for rank, folder in enumerate(folders)
    ]
    return Shards.open(store, parts)


def load(folder: Path, model_dir: Path) -> None:
    """Read a checkpoint folder into a fresh model and optimiser."""
    load_shards(opened(folder), model_dir)


def load_shards(shards: Shards, model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    restore(shards, model, torch.optim.AdamW(model.parameters()))
    shards.rng(0)


def rewrite(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change tensors and pieces of a part and write them anew."""
    tensors = load_file(folder / SHARD_FILE)
    record = json.loads((folder / PIECES_FILE).read_text())
    change(tensors, record["pieces"])
    save_file(tensors, folder / SHARD_FILE)
    (folder / PIECES_FILE).write_text(json.dumps(record))


NORM = "model.norm.weight"


def drop_tensor(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    for kind in ("model", "exp_avg", "exp_avg_sq"):
        del tensors[f"{kind}/{NORM}"], pieces[f"{kind}/{NORM}"]


def drop_moment(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    del tensors[f"exp_avg_sq/{NORM}"], pieces[f"exp_avg_sq/{NORM}"]


def reshape(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    tensors[f"model/{NORM}"] = torch.zeros(32)
    pieces[f"model/{NORM}"] = {"shape": [32], "offset": [0], "size": [32]}


def halve(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    cut(tensors, pieces)
    pieces[f"model/{NORM}"]["size"] = [32]


def cut(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    tensors[f"model/{NORM}"] = tensors[f"model/{NORM}"][:32].clone()


def outside(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    pieces[f"model/{NORM}"]["offset"] = [1]


def retype(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    tensors[f"model/{NORM}"] = tensors[f"model/{NORM}"].double()


def undeclare(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    del pieces[f"model/{NORM}"]


def add_tensor(tensors: dict[str, Any], pieces: dict[str, Any]) -> None:
    tensors["model/extra"] = torch.zeros(1)
    pieces["model/extra"] = {"shape": [1], "offset": [0], "size": [1]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_tensor, f"another model.*1 tensors.*{NORM}"),
        (drop_moment, f"lacks a tensor.*exp_avg_sq/{NORM}"),
        (reshape, "another shape.*32.*64"),
        (halve, f"does not cover tensor model/{NORM}.*32 elements.*64"),
        (outside, "lies outside its tensor"),
        (retype, "another type.*float64.*float32"),
        (undeclare, "pieces and tensors differ"),
        (cut, f"pieces and tensors differ.*model/{NORM}"),
        (add_tensor, "another model.*extra"),
    ],
)
def test_a_shard_of_other_content_is_refused_with_the_reason(
    saved: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    reason: str,
) -> None:
    folder = copy(saved / "step-2", tmp_path / "step")
    load(folder, tiny_model_dir)
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=reason):
        load(folder, tiny_model_dir)


def copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of: flipped bits, cut, grown, zeroed region, swapped regions."""
    kind = rng.randrange(5)
    at = rng.randrange(len(data))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]
    if kind == 3:
        end = min(len(data), at + rng.randint(1, 4096))
        zeroed = data[:at] + bytes(end - at) + data[end:]
        return zeroed if zeroed != data else data[:-1]
    half = len(data) // 2
    return data[half:] + data[:half]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_mutated_objects_are_refused_before_any_parser_sees_them(
    saved: Path, tiny_model_dir: Path, tmp_path: Path, count: int
) -> None:
    rng = random.Random(count)
    published = Store(tmp_path / "store", cache=tmp_path / "cache0")
    part = published.publish_dir("m/checkpoints/parts/rank-0-of-1", "s", saved / "step-2")
    index = Checkpoint(job_digest=JOB, step=2, parts=(part,))
    handle = published.publish("m/checkpoints", "step-2", {INDEX_FILE: index.to_json()})
    objects = [p for p in (tmp_path / "store" / "objects").rglob("*") if p.is_file()]
    for number in range(count):
        store = Store(tmp_path / "store", cache=tmp_path / f"cache-{number}")
        victim = rng.choice(objects)
        whole = victim.read_bytes()
        victim.chmod(0o644)
        victim.write_bytes(mutate(whole, rng))
        with pytest.raises(
            (CorruptionError, DamagedCheckpoint),
            match=rf"{victim.name} is damaged|is not whole in the store",
        ):
            load_checkpoint(store, handle, tiny_model_dir)
        victim.write_bytes(whole)
    end = Store(tmp_path / "store", cache=tmp_path / "cache-end")
    load_checkpoint(end, handle, tiny_model_dir)


def load_checkpoint(store: Store, handle: Handle, model_dir: Path) -> None:
    found = read_checkpoint(store, handle, job_digest=JOB)
    load_shards(Shards.open(store, found.parts), model_dir)


INDEX = Checkpoint(
    job_digest=JOB, step=2, parts=(Handle(name="p", version="v", uri="u", digest="d"),)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "unreadable checkpoint index"),
        (b"\xff\xfe", "unreadable checkpoint index"),
        (b"[]", "unreadable checkpoint index"),
        (b"{}", "unreadable checkpoint index.*format"),
        (pickle.dumps({"format": FORMAT}), "unreadable checkpoint index"),
        (replace(INDEX, format="still-checkpoint-9").to_json(), "another format.*-9"),
        (replace(INDEX, parts=()).to_json(), "without parts"),
        (replace(INDEX, step=0).to_json(), "without parts or steps"),
        (INDEX.to_json().replace(b'"digest": "d"', b'"evil": "d"'), "evil"),
        (b"[" * 5_000, "unreadable checkpoint index"),
    ],
)
def test_an_index_that_is_none_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        Checkpoint.from_json(text)


def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.publish("p", "v", {SHARD_FILE: b"s"})
    index = replace(INDEX, parts=(part,))
    handle = store.publish("m/checkpoints", "step-2", {INDEX_FILE: index.to_json()})
    assert read_checkpoint(store, handle, job_digest=JOB) == index
    with pytest.raises(CheckpointError, match=r"belongs to another job.*0123456789abcdef"):
        read_checkpoint(store, handle, job_digest="f" * 16)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def test_nothing_in_a_checkpoint_folder_can_run(
    saved: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    pickle.loads(bomb)
    assert canary.exists(), "the bomb works"
    canary.unlink()
    torch_bomb = tmp_path / "bomb.pt"
    torch.save(Bomb(canary), torch_bomb)
    huge_header = (2**62).to_bytes(8, "little") + b"{}"
    overlapping = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        }
    ).encode()
    overlapping = len(overlapping).to_bytes(8, "little") + overlapping + bytes(24)
    hostile = [
        bomb,
        torch_bomb.read_bytes(),
        huge_header,
        overlapping,
        b"PK\x03\x04" + bytes(100),
        b"",
    ]
    for name in (SHARD_FILE, PIECES_FILE, RNG_FILE, STATE_FILE):
        for number, content in enumerate(hostile):
            folder = copy(saved / "step-2", tmp_path / f"{name}-{number}")
            (folder / name).write_bytes(content)
            with pytest.raises(CheckpointError, match="unreadable"):
                load(folder, tiny_model_dir)
    # Files with names that other loaders know are never opened.
    folder = copy(saved / "step-2", tmp_path / "beside")
    for name in (".metadata", "optimizer.pt", "rng_state.pth", "pytorch_model.bin"):
        (folder / name).write_bytes(bomb)
    load(folder, tiny_model_dir)
    assert not canary.exists()


@pytest.fixture
def two_checkpoints(saved: Path, tmp_path: Path) -> Store:
    """Whole checkpoints of a job after steps 2 and 4, and nothing in the cache."""
    store = Store(tmp_path / "store", cache=tmp_path / "cache")
    for step in (2, 4):
        part = store.publish_dir(part_name(), checkpoint_version(step), saved / f"step-{step}")
        index = Checkpoint(job_digest=JOB, step=step, parts=(part,))
        store.publish(
            A_JOB.checkpoints_name(),
            checkpoint_version(step),
            {INDEX_FILE: index.to_json()},
            meta={"step": step},
        )
    return store


def part_name() -> str:
    return f"{A_JOB.checkpoints_name()}/parts/rank-0-of-1"


def damage_index(store: Store, step: int) -> None:
    path = Path(store.root) / manifest_key(A_JOB.checkpoints_name(), checkpoint_version(step))
    path.chmod(0o644)
    path.write_bytes(b"{")


def lose_shard(store: Store, step: int) -> None:
    part = store.find(part_name(), checkpoint_version(step))
    assert part is not None
    store.backend.delete(store.manifest(part).objects[SHARD_FILE].key)


@pytest.mark.parametrize("spoil", [damage_index, lose_shard])
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before_it(
    two_checkpoints: Store, spoil: Callable[[Store, int], None]
) -> None:
    spoil(two_checkpoints, 4)

    latest = latest_checkpoint(two_checkpoints, A_JOB, JOB)

    assert latest.checkpoint is not None
    assert (latest.checkpoint.step, latest.version) == (2, checkpoint_version(2))
    assert latest.unused == {checkpoint_version(4)}
    # While the job trains on, old ones are still forgotten.
    name = A_JOB.checkpoints_name()
    forget_checkpoints(two_checkpoints, name, newest=1, unused=latest.unused)
    assert checkpoint_version(2) in two_checkpoints.versions(name)


def test_a_checkpoint_that_a_rank_refused_is_not_found_again(two_checkpoints: Store) -> None:
    refused = frozenset({checkpoint_version(4)})
    assert latest_checkpoint(two_checkpoints, A_JOB, JOB, unused=refused).version == (
        checkpoint_version(2)
    )
    refused |= {checkpoint_version(2)}
    assert latest_checkpoint(two_checkpoints, A_JOB, JOB, unused=refused).checkpoint is None


class FailingStore(Store):
    """Answers no read, as a store does whose server or disk is out of order for a while."""

    def read_bytes(self, handle: Handle, relpath: str) -> bytes:
        raise StoreError(f"can not read {handle.name} (No space left on device); free some")


def test_a_store_that_fails_for_now_ends_the_job_and_does_not_start_it_anew(
    two_checkpoints: Store,
) -> None:
    with pytest.raises(StoreError, match="No space left on device"):
        latest_checkpoint(FailingStore(two_checkpoints.root), A_JOB, JOB)


def test_the_newest_checkpoint_is_found_without_its_parts_being_fetched(
    two_checkpoints: Store, tmp_path: Path
) -> None:
    assert latest_checkpoint(two_checkpoints, A_JOB, JOB).version == checkpoint_version(4)
    assert not (tmp_path / "cache").exists()


def halves(folder: Path) -> Shards:
    """A checkpoint of two ranks, each with three rows of one tensor."""
    for rank in (0, 1):
        piece = Piece(shape=(6, 2), offset=(3 * rank, 0), size=(3, 2))
        rows = torch.arange(12.0).reshape(6, 2)[3 * rank : 3 * rank + 3].clone()
        staged = Staged(tensors={"w": rows}, pieces={"w": piece}, rng={}, state={})
        write_shard(staged, folder / f"half-{rank}")
    return opened(folder / "half-0", folder / "half-1")


@contextlib.contextmanager
def second_rank(num_ranks: int) -> Iterator[DeviceMesh]:
    """What rank 1 sees of a mesh; the other ranks are not there."""
    torch.distributed.init_process_group("fake", rank=1, world_size=num_ranks, store=FakeStore())
    yield init_device_mesh("cpu", (num_ranks,))
    torch.distributed.destroy_process_group()


def test_a_rank_fetches_only_the_parts_that_overlap_with_its_own_pieces(tmp_path: Path) -> None:
    shards = halves(tmp_path)
    first = shards.store.manifest(shards.parts[0]).objects[SHARD_FILE]
    shards.store.backend.delete(first.key)
    with second_rank(2) as mesh:
        mine = DTensor.from_local(torch.zeros(3, 2), mesh, [Shard(0)])
        shards.copy_into("w", mine)
        assert mine.to_local().tolist() == [[6, 7], [8, 9], [10, 11]]
    with second_rank(3) as mesh:
        mine = DTensor.from_local(torch.zeros(2, 2), mesh, [Shard(0)])
        with pytest.raises(DamagedCheckpoint, match="rank-0"):
            shards.copy_into("w", mine)


def test_a_rank_puts_its_piece_together_from_the_pieces_of_others(tmp_path: Path) -> None:
    shards = halves(tmp_path)
    with second_rank(3) as mesh:
        mine = DTensor.from_local(torch.zeros(2, 2), mesh, [Shard(0)])
        shards.copy_into("w", mine)
        assert mine.to_local().tolist() == [[4, 5], [6, 7]]


def test_steps_left_out_in_a_row_are_counted_on_after_a_resume(
    saved: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = copy(saved / "step-4", tmp_path / "step-4")
    state = json.loads((folder / STATE_FILE).read_text())
    for row, skipped in zip(state["metrics"], (1, 0, 1, 1), strict=True):
        row["skipped"] = skipped
    (folder / STATE_FILE).write_text(json.dumps(state))
    trainer = ready(tiny_model_dir, tmp_path, Keeper(tmp_path), folder)
    assert trainer._history.skipped_in_a_row == 2
