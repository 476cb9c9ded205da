"""Recipe files that ship: each loads, and the one to copy needs nothing but its data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.miniature import backbone_directory
from still_core.problems.prepare import prepare_problems
from still_core.recipes.loading import load_recipe, load_resources
from still_core.recipes.presets import PRESETS
from still_core.refine.mix import mix
from tasks.preflight import preflight
from tests.unit.refine.test_clean_rules import row

SHIPPED = Path(__file__).parents[2] / "deployments" / "recipes"
OWN_DATA = str(SHIPPED / "own-data.yaml")


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and the three files that `own-data.yaml` reads."""
    monkeypatch.chdir(tmp_path)
    model = Path(shutil.copytree(backbone_directory(), tmp_path / "models" / "base"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    (tmp_path / "data").mkdir()
    for number, name in enumerate(("problems", "thoughts", "held-out"), 2):
        row = {"question": f"What is the square of {number}?", "answer": str(number**2)}
        if name == "thoughts":
            row["response"] = f"<think>{number} times {number}.</think> \\boxed{{{number**2}}}"
        (tmp_path / "data" / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_loads(file: Path) -> None:
    assert load_recipe(str(file)).name == file.stem
    load_resources(str(file))


@pytest.mark.parametrize(
    "name", [*PRESETS, *map(str, sorted(SHIPPED.glob("*.yaml")))], ids=lambda name: Path(name).stem
)
def test_what_a_shipped_recipe_explores_has_a_weight_in_its_mixture(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.mix.by == "bucket"
    assert all(recipe.mix.weights.get(bucket, 0.0) > 0 for bucket in recipe.pool.buckets)


def test_the_recipe_to_copy_is_ready_to_run_once_its_files_are_there(own_files: Path) -> None:
    recipe = load_recipe(OWN_DATA)
    found = preflight(recipe, str(own_files / "store"), load_resources(OWN_DATA))
    assert set(found.problems) == {f"data/{p.name}" for p in (own_files / "data").iterdir()}
    prepared = prepare_problems(recipe.problems)
    assert [problem.gold for problem in prepared.problems] == ["4", "9"]
    assert [raw.teacher for raw in prepared.responses] == ["my-teacher"]


def test_the_recipe_to_copy_trains_on_few_finds_beside_many_distilled_thoughts() -> None:
    recipe = load_recipe(OWN_DATA).mix
    d0 = mix([row(number, bucket="normal_math") for number in range(1000)], recipe)
    finds = [row(number, bucket="hard_math") for number in range(1000, 1010)]
    d1 = mix([*d0.kept, *finds], recipe)
    assert (len(d0.kept), len(d1.kept)) == (1000, 1010)


def test_the_recipe_to_copy_names_the_model_that_is_not_there(own_files: Path) -> None:
    shutil.rmtree(own_files / "models")
    recipe = load_recipe(OWN_DATA)
    with pytest.raises(ConfigError, match=r"\./models/base"):
        preflight(recipe, str(own_files / "store"), load_resources(OWN_DATA))


def test_the_recipe_to_copy_names_the_file_that_is_not_there(own_files: Path) -> None:
    (own_files / "data" / "held-out.jsonl").unlink()
    recipe = load_recipe(OWN_DATA)
    with pytest.raises(ConfigError, match=r"no data there: got 'data/held-out\.jsonl'"):
        preflight(recipe, str(own_files / "store"), load_resources(OWN_DATA))
