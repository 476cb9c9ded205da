"""The list of a recipe's fields: all of them, as the models say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from still_core.errors import ConfigError
from still_core.recipes.fields import fields_page, recipe_fields
from still_core.recipes.presets import resources_32b, still_2_32b

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "recipe-fields.md"


def leaves(value: Any, place: str = "") -> set[str]:
    """Paths of a dumped recipe, `[]` for each element of a list of sections."""
    if isinstance(value, dict) and value:
        return set().union(*(leaves(child, f"{place}.{name}") for name, child in value.items()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(leaves(child, f"{place}[]") for child in value))
    return {place.removeprefix(".")}


def test_every_field_of_a_recipe_and_of_its_resources_is_listed_once() -> None:
    listed = [field.place for field in recipe_fields()]
    assert len(listed) == len(set(listed))
    tree = still_2_32b().model_dump(mode="json") | {"resources": resources_32b().model_dump()}
    tree["mix"]["weights"] = {}  # named by their user
    assert leaves(tree) == set(listed)


def test_a_field_has_type_range_default_and_meaning() -> None:
    (field,) = recipe_fields("clean.min_thought_characters")
    assert field[1:] == (
        "integer >= 0, <= 1,000,000",
        "200",
        "Shorter thoughts are dropped, in characters.",
    )
    assert [f.default for f in recipe_fields("mix.weights")] == [
        '{"hard_math": 1.0, "normal_math": 1.0, "other": 1.0}'
    ]
    assert [f.kind for f in recipe_fields("distil.teachers[].kind")] == [
        "`file`, `endpoint`, `local`, `scripted`"
    ]


def test_a_prefix_names_whole_words() -> None:
    assert {f.place.partition(".")[0] for f in recipe_fields("pool")} == {"pool"}
    assert recipe_fields("problems.sources")[0].place == "problems.sources[].name"
    with pytest.raises(ConfigError, match="no field of a recipe has this name: got 'poo'"):
        recipe_fields("poo")


def test_the_page_in_the_docs_is_current() -> None:
    now = "run: still recipe fields > docs/reference/recipe-fields.md"
    assert PAGE.read_text(encoding="utf-8") == fields_page(), now
