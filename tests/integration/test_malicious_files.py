"""Files that would run a program if anything trusted them: refused by name, and nothing runs."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import pytest

from still_core.errors import CheckpointError, ConfigError, DataError, StillError
from still_core.problems.rows import Quarantined, read_rows
from still_core.recipes.loading import load_recipe
from still_core.rollout.weights import Weights
from still_core.store import Store
from still_core.train.checkpoint import (
    INDEX_FILE,
    PIECES_FILE,
    STATE_FILE,
    Shards,
    read_checkpoint,
)
from still_core.train.model_folder import model_files, model_folder
from tests.fixtures.malicious_files import (
    DATA,
    MODELS,
    RECIPES,
    Payload,
    malicious_model,
    program,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_malicious_model_is_refused_and_runs_nothing(name: str, tmp_path: Path) -> None:
    model, canary = malicious_model(name, tmp_path)
    with pytest.raises(ConfigError) as refusal:
        model_files(model_folder(str(model)))
    assert str(model) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", sorted(name for name in MODELS if "link" not in name))
def test_an_engine_refuses_a_malicious_model_before_it_loads(name: str, tmp_path: Path) -> None:
    model, canary = malicious_model(name, tmp_path)
    weights = Weights(directory=str(model), policy_digest="p", policy_version=0)
    with pytest.raises(ConfigError):
        weights.resolve()
    assert not canary.exists()


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_malicious_data_file_gives_rows_or_a_reason(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = DATA[name](tmp_path, canary)
    before = {found.name for found in tmp_path.iterdir()}
    rows = []
    # A file that can not be opened as what its name says; single bad rows are set aside.
    with suppress(DataError):
        rows = list(read_rows(str(path)))
    sound = [row.value for row in rows if not isinstance(row, Quarantined)]
    assert all(set(value) <= {"question", "answer"} for value in sound)
    assert {found.name for found in tmp_path.iterdir()} == before
    assert not canary.exists()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_malicious_recipe_is_refused(name: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "recipe.yaml"
    path.write_text(RECIPES[name].format(canary=canary))
    with pytest.raises(ConfigError):
        load_recipe(str(path))
    assert not canary.exists()


def test_a_pickle_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    canary, store = tmp_path / "canary", Store(tmp_path / "store")
    data = pickle.dumps(Payload(canary))
    index = store.publish("checkpoint", "1", {INDEX_FILE: data, ".metadata": data})
    with pytest.raises(StillError):
        read_checkpoint(store, index, job_digest="j")
    part = store.publish("part", "1", dict.fromkeys((PIECES_FILE, STATE_FILE), data))
    with pytest.raises(CheckpointError):
        Shards.open(store, [part])
    assert not canary.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "by-pickle")))
    exec(program(tmp_path / "by-program"), {})
    assert (tmp_path / "by-pickle").exists()
    assert (tmp_path / "by-program").exists()
