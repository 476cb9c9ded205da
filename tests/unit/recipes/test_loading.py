"""Recipes and resources by preset, file and change."""

from __future__ import annotations

from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.recipes.loading import load_recipe, load_resources
from still_core.recipes.presets import miniature, resources_32b, still_2_32b
from still_core.recipes.recipe import Resources

SHIPPED = Path(__file__).parents[3] / "deployments" / "recipes"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_differs_from_its_base_only_in_what_it_says(tmp_path: Path) -> None:
    mine = load_recipe(write(tmp_path, "base: miniature\nname: mine\nsft: {epochs: 9}\n"))
    base = miniature()
    sft = base.sft.model_copy(update={"epochs": 9})
    assert mine == base.model_copy(update={"name": "mine", "sft": sft})


def test_a_file_runs_on_what_its_base_is_planned_for(tmp_path: Path) -> None:
    file = write(tmp_path, "base: still-2-32b\n")
    assert load_resources(file) == load_resources("still-2-32b") == resources_32b()
    assert load_resources(write(tmp_path, "base: miniature\n")) == Resources()


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("table-3-*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_variants_of_the_32b_recipe_run_on_its_nodes(file: Path) -> None:
    assert load_resources(str(file)) == resources_32b()


def test_a_files_own_resources_win_over_its_base_and_a_change_over_both(tmp_path: Path) -> None:
    file = write(
        tmp_path, "base: still-2-32b\nresources: {train: {num_ranks: 2}, rollout: {num_actors: 3}}"
    )
    planned = resources_32b()
    found = load_resources(file, ["rollout.num_actors=5"])
    assert (found.train.num_ranks, found.rollout.num_actors) == (2, 5)
    assert found.train.gpus_per_rank == planned.train.gpus_per_rank
    assert load_recipe(file) == still_2_32b(), "resources are no part of a recipe"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: still-2-23b", "base in .*got 'still-2-23b'"),
        ("base: [miniature]", "base in .*expected"),
        ("base: miniature\nresources: 8", "resources in .*got 'int'"),
        ("base: miniature\nresources: {train: {ranks: 8}}", "train.ranks: unknown key"),
        ("base: miniature\nepochs: 3", "epochs: unknown key"),
        ("- base", "got 'list'"),
        ("base: {", "not YAML"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)

    def load() -> None:
        load_recipe(file)
        load_resources(file)

    with pytest.raises(ConfigError, match=said) as error:
        load()
    assert "\n" not in str(error.value)


def test_a_wrong_change_is_told_by_its_option() -> None:
    for change in ("train.num_ranks", "train.nope=3"):
        with pytest.raises(ConfigError, match=r"^--resource"):
            load_resources("miniature", [change])
        with pytest.raises(ConfigError, match=r"^--set"):
            load_recipe("miniature", [change])
