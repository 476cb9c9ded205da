"""`still recipe`: what a recipe says, and what it may say."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import Changes, ResourceChanges


def show(
    recipe: Annotated[str, Parameter(help="Preset name, or a YAML or JSON file.")] = "miniature",
    /,
    *,
    set: Changes = (),
    resource: ResourceChanges = (),
    parameters: Annotated[
        bool,
        Parameter(negative="", help="As JSON for `prefect deployment run NAME --params`."),
    ] = False,
) -> None:
    """Print a recipe with every field and its resources, as YAML that `--recipe` takes again."""
    from still_core.recipes.loading import load_recipe, load_resources
    from still_core.recipes.writing import as_parameters, as_yaml

    chosen, resources = load_recipe(recipe, set), load_resources(recipe, resource)
    write = as_parameters if parameters else as_yaml
    sys.stdout.write(f"{write(chosen, resources).rstrip()}\n")


def fields(
    prefix: Annotated[str, Parameter(help="Section or field; all if left out.")] = "", /
) -> None:
    """Print name, type, default and meaning of every field of a recipe."""
    from still_core.recipes.fields import fields_page

    sys.stdout.write(fields_page(prefix))
