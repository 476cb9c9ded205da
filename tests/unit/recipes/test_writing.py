"""A recipe written out is the same recipe when read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import build_app
from still_core.recipes.loading import load_recipe, load_resources
from still_core.recipes.presets import PRESETS
from still_core.recipes.recipe import Resources, Still2Recipe


def still(*words: str) -> None:
    build_app()(["recipe", *words], result_action="return_value")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_what_show_prints_loads_again(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still("show", preset, "--set", "sft.learning_rate=5e-7", "--resource", "verify_workers=3")
    file = tmp_path / "shown.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_recipe(str(file)) == load_recipe(preset, ["sft.learning_rate=5e-7"])
    assert load_resources(str(file)) == load_resources(preset, ["verify_workers=3"])


def test_parameters_are_those_of_the_deployed_flow(capsys: pytest.CaptureFixture[str]) -> None:
    still("show", "still-2-32b", "--parameters")
    parameters = json.loads(capsys.readouterr().out)
    assert Still2Recipe.model_validate(parameters["recipe"]) == load_recipe("still-2-32b")
    assert Resources.model_validate(parameters["resources"]) == load_resources("still-2-32b")
    assert set(parameters) == {"recipe", "resources"}


def test_fields_prints_the_part_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    still("fields", "pool.difficulty")
    assert capsys.readouterr().out.count("| `pool.difficulty.") == 4
