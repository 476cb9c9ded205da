"""STILL-2 as deployments: the same flow, the UI's form filled in from a preset."""

from __future__ import annotations

import os

from deployments.environment import prepare_environment

prepare_environment()

from prefect import flow  # noqa: E402 - Prefect reads its settings when it is imported

from flows.still_2 import still_2  # noqa: E402
from still_core.recipes import presets  # noqa: E402
from still_core.recipes.recipe import Resources, Still2Recipe  # noqa: E402

STORE = os.environ.get("STILL_STORE", ".still/store")


@flow(name="still-2", flow_run_name="{recipe.name}", description=still_2.description)
def miniature(
    recipe: Still2Recipe = presets.miniature(),  # noqa: B008 - frozen; the form's default
    store: str = STORE,
    reports: str = "reports",
    resources: Resources = Resources(),  # noqa: B008
) -> str:
    """The miniature: two cores, minutes."""
    return still_2.fn(recipe, store, reports, resources)


@flow(name="still-2", flow_run_name="{recipe.name}", description=still_2.description)
def still_2_32b(
    recipe: Still2Recipe = presets.still_2_32b(),  # noqa: B008
    store: str = STORE,
    reports: str = "reports",
    resources: Resources = presets.resources_32b(),  # noqa: B008
) -> str:
    """The paper's run: Qwen2.5-32B-Instruct on GPU nodes."""
    return still_2.fn(recipe, store, reports, resources)
