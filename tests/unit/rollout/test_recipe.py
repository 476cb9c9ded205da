"""Recipes, identities and the light imports that they promise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.rollout.engines.engine import engine_build
from still_core.rollout.pool import RolloutPool
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Sampling
from still_core.rollout.weights import Weights, directory_digest, shape_digest
from still_core.store import Store
from tests.fixtures.tiny_model import write_tiny_model


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


def test_recipes_load_pydantic_and_nothing_heavy() -> None:
    loaded = loaded_after("import still_core.rollout.recipe, still_core.heartbeat")
    assert not loaded & {"torch", "vllm", "ray", "transformers", "pandas", "pyarrow", "datasets"}


def test_what_a_ray_worker_imports_holds_no_prefect() -> None:
    loaded = loaded_after(
        "import still_core.rollout.actor, still_core.rollout.pool, still_core.rollout.explore, "
        "still_core.rollout.engines.vllm, still_core.rollout.engines.transformers"
    )
    assert not loaded & {"prefect", "torch", "vllm", "ray", "transformers"}


def test_the_default_waves_are_the_papers_twenty_attempts() -> None:
    resources = RolloutResources()
    assert ExploreRecipe(sampling=Sampling(max_tokens=8)).max_attempts == sum(resources.waves) == 20
    limits = [resources.in_flight_limit(finished) for finished in range(20)]
    assert limits == [1, 1, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8]


def test_idle_places_take_as_many_attempts_as_are_more_likely_wanted_than_not() -> None:
    resources = RolloutResources()
    for failures in range(6):
        limit = resources.idle_limit(failures)
        # All m running ones fail with probability (k + 1) / (k + 1 + m) after k failures.
        wanted = [(failures + 1) / (failures + 1 + running) for running in range(limit + 1)]
        assert wanted[limit - 1] >= 0.5 > wanted[limit]
    assert resources.idle_limit(19) == 8
    assert RolloutResources(waves=(1,)).idle_limit(5) == 1


def test_a_wave_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout\.waves"):
        RolloutResources(waves=(1, 0))


def test_what_changes_completions_changes_the_engine_build() -> None:
    builds = {
        engine_build(EngineRecipe(kind="transformers")),
        engine_build(EngineRecipe(kind="transformers", dtype="bfloat16")),
        engine_build(EngineRecipe(kind="transformers", max_model_len=1024)),
        engine_build(EngineRecipe(kind="vllm")),
        engine_build(EngineRecipe(kind="openai", model="a")),
        engine_build(EngineRecipe(kind="openai", model="b")),
    }
    assert len(builds) == 6


def test_weights_differ_by_content_and_shape_by_architecture(
    tiny_model_dir: Path, other_tiny_model_dir: Path, tmp_path: Path
) -> None:
    assert directory_digest(tiny_model_dir) != directory_digest(other_tiny_model_dir)
    assert shape_digest(tiny_model_dir) == shape_digest(other_tiny_model_dir)
    wider = write_tiny_model(tmp_path / "wider", hidden=96)
    assert shape_digest(wider) != shape_digest(tiny_model_dir)


SETTINGS = {
    "config.json": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "generation_config.json": {"eos_token_id": [1, 2]},
    "tokenizer_config.json": {"chat_template": "{{ messages }}"},
}
"""What a user may mend in a model's folder, by file."""


def mended_copy(model: Path, folder: Path, name: str) -> Path:
    """A copy of a model's folder in which one of its settings is another."""
    shutil.copytree(model, folder)
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **SETTINGS[name]}))
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_a_teacher_whose_settings_were_mended_is_another_policy(
    tiny_model_dir: Path, tmp_path: Path, name: str
) -> None:
    mended = mended_copy(tiny_model_dir, tmp_path / "mended", name)
    resources, engine = RolloutResources(), EngineRecipe(kind="transformers")
    before, after = (RolloutPool(each, engine, resources) for each in (tiny_model_dir, mended))
    assert before.policy_digest != after.policy_digest


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_live_engine_is_not_used_again_for_what_it_reads_at_its_start(
    tiny_model_dir: Path, tmp_path: Path, name: str
) -> None:
    mended = mended_copy(tiny_model_dir, tmp_path / "mended", name)
    assert shape_digest(mended) != shape_digest(tiny_model_dir)


def test_the_loops_models_go_by_their_handle_whatever_their_folder_says(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    handle = Store(tmp_path / "store").publish_dir("model", "1", tiny_model_dir)
    resources, engine = RolloutResources(), EngineRecipe(kind="transformers")
    pool = RolloutPool(tiny_model_dir, engine, resources, handle=handle)
    assert pool.policy_digest == handle.digest


def test_how_a_trainer_writes_the_end_tokens_down_does_not_change_the_shape(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    settings = json.loads((copy / "generation_config.json").read_text())
    settings.update(eos_token_id=[settings["eos_token_id"]], transformers_version="0")
    (copy / "generation_config.json").write_text(json.dumps(settings))
    assert shape_digest(copy) == shape_digest(tiny_model_dir)


def test_a_trainer_s_notes_in_the_config_do_not_change_the_shape(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    config = json.loads((copy / "config.json").read_text())
    config.update(use_cache=False, transformers_version="0", dtype="bfloat16")
    (copy / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer.update(truncation={"max_length": 4}, padding={"strategy": "BatchLongest"})
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert shape_digest(copy) == shape_digest(tiny_model_dir)


def test_a_folder_without_tokenizer_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has no readable tokenizer\.json"):
        shape_digest(tmp_path)


def test_missing_weights_without_a_handle_are_named() -> None:
    weights = Weights(directory="nowhere/at-all", policy_digest="d", policy_version=0)
    with pytest.raises(ConfigError, match="model folder"):
        weights.resolve()


def test_weights_that_a_node_lacks_are_fetched_by_handle(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    handle = store.publish_dir("model", "1", tiny_model_dir)
    weights = Weights(
        directory="a/folder/of/another/node",
        policy_digest=handle.digest,
        policy_version=0,
        handle=handle,
        store_uri=store.root,
    )
    assert directory_digest(weights.resolve()) == directory_digest(tiny_model_dir)
