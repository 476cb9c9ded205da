"""What a training job is: its identity and the model folders it takes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.store import Store
from still_core.store.handle import Handle
from still_core.train import DpoJob, DpoRecipe, SftJob, SftRecipe, TrainResources
from still_core.train.checkpoint import forget_checkpoints
from still_core.train.job import folder_digest
from still_core.train.model_folder import PATTERNS

DATA = Handle(name="d", version="v", uri="u", digest="data")
MODEL = Handle(name="m", version="v", uri="u", digest="model")
JOB = SftJob(
    model=MODEL,
    demonstrations=DATA,
    prompt="bare",
    sft=SftRecipe(),
    seed=0,
    name="m1",
    version="v1",
)


def test_names_places_and_resources_are_no_part_of_identity() -> None:
    identity = JOB.digest("model")
    same = (
        replace(JOB, name="other", version="v9"),
        replace(JOB, resources=TrainResources(num_ranks=8)),
        replace(JOB, demonstrations=replace(DATA, uri="elsewhere", name="x")),
    )
    assert {job.digest("model") for job in same} == {identity}


def test_what_defines_the_weights_is_identity() -> None:
    changed = [
        JOB.digest("other model"),
        replace(JOB, seed=1).digest("model"),
        replace(JOB, prompt="still-2").digest("model"),
        replace(JOB, sft=SftRecipe(epochs=2)).digest("model"),
        replace(JOB, demonstrations=replace(DATA, digest="other")).digest("model"),
        DpoJob(
            model=MODEL,
            pairs=DATA,
            prompt="bare",
            dpo=DpoRecipe(),
            seed=0,
            name="m1",
            version="v1",
        ).digest("model"),
    ]
    assert len({JOB.digest("model"), *changed}) == 7


def test_the_identity_of_the_default_recipe_is_pinned() -> None:
    # A change here re-trains every model of every user: raise TRAINING_VERSION on purpose only.
    assert JOB.digest("model") == "72d0c7deee1ea5f7"


def test_a_folder_is_known_by_its_bytes(tiny_model_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy"
    other.mkdir()
    for path in tiny_model_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert folder_digest(other) == folder_digest(tiny_model_dir)
    (other / "training_args.bin").write_bytes(b"not of the model")
    assert folder_digest(other) == folder_digest(tiny_model_dir)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert folder_digest(other) != folder_digest(tiny_model_dir)


def test_every_file_that_is_fetched_with_a_model_is_part_of_its_identity(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    known = {folder_digest(tiny_model_dir)}
    for pattern in PATTERNS:
        folder = tmp_path / pattern[2:]
        shutil.copytree(tiny_model_dir, folder)
        (folder / pattern.replace("*", "one-more")).write_bytes(b"of the model")
        known.add(folder_digest(folder))
    assert len(known) == 1 + len(PATTERNS)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"not a model folder.*safetensors"):
        folder_digest(tmp_path)


def whole_checkpoint(store: Store, name: str, step: int) -> str:
    version = f"step-{step:08d}-a"
    parts = f"{name}/parts/rank-0-of-1"
    store.publish(parts, version, {"shard": f"part {step}".encode()})
    store.publish(name, version, {"index": f"index {step}".encode()}, meta={"step": step})
    return version


def test_the_newest_checkpoints_stay_with_their_parts_and_refused_ones_do_not_count(
    tmp_path: Path,
) -> None:
    store, name = Store(tmp_path), JOB.checkpoints_name()
    damaged = whole_checkpoint(store, name, 90)
    for step in (10, 20, 30):
        whole_checkpoint(store, name, step)
        forget_checkpoints(store, name, newest=2, unused={damaged})
    store.publish(f"{name}/parts/rank-0-of-1", "step-00000040-a", {"shard": b"in the making"})
    forget_checkpoints(store, name, newest=2, unused={damaged})
    steps = {(h.name == name, int(h.version[5:13])) for h in store.list(name)}
    assert steps == {(whole, step) for whole in (True, False) for step in (20, 30, 90)} | {
        (False, 40)
    }
    forget_checkpoints(store, name, newest=0)
    assert store.list(name) == []


def test_checkpoints_of_different_versions_lie_apart() -> None:
    assert JOB.checkpoints_name() != replace(JOB, version="v2").checkpoints_name()
