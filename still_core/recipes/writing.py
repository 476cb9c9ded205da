"""A resolved recipe as text, to look at, to start a file from, or to hand to a deployment."""

from __future__ import annotations

import json
from typing import Any

import yaml

from still_core.recipes.recipe import Resources, Still2Recipe


def as_yaml(recipe: Still2Recipe, resources: Resources) -> str:
    """A recipe file without a base: every field of the recipe, the resources in their section."""
    tree = {**_plain(recipe), "resources": _plain(resources)}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def as_parameters(recipe: Still2Recipe, resources: Resources) -> str:
    """The same as JSON parameters of a deployment's run."""
    return json.dumps({"recipe": _plain(recipe), "resources": _plain(resources)})


def _plain(section: Still2Recipe | Resources) -> dict[str, Any]:
    return section.model_dump(mode="json")
