"""`still run` and `still plan`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.ending import end_on_signals
from deployments.cli.parameters import DEFAULT_STORE, Changes, ResourceChanges, StoreRoot
from deployments.environment import prepare_environment
from still_core.recipes.loading import load_recipe, load_resources

Recipe = Annotated[
    str, Parameter(name=["--recipe", "-r"], help="Preset name, or a YAML or JSON file.")
]


def run(
    *,
    recipe: Recipe = "miniature",
    set: Changes = (),
    store: StoreRoot = DEFAULT_STORE,
    reports: Path = Path("reports"),
    resource: ResourceChanges = (),
) -> None:
    """Run the whole STILL-2 loop; stages whose inputs did not change are taken from the store."""
    chosen, resources = load_recipe(recipe, set), load_resources(recipe, resource)
    prepare_environment()
    end_on_signals()
    from flows.still_2 import still_2
    from still_core.doctor import require_prefect
    from still_core.report.terminal import print_summary
    from tasks.preflight import preflight

    # The flow checks again; here a mistake is told before a server starts.
    preflight(chosen, store, resources, str(reports))
    require_prefect(os.environ)
    page = still_2(recipe=chosen, store=store, reports=str(reports), resources=resources)
    print_summary(Path(page))


def plan(
    *,
    recipe: Recipe = "miniature",
    set: Changes = (),
    store: StoreRoot = DEFAULT_STORE,
    resource: ResourceChanges = (),
) -> None:
    """Print the DAG, what is cached, what will run and what it will cost."""
    chosen, resources = load_recipe(recipe, set), load_resources(recipe, resource)
    prepare_environment()
    from flows.planning import plan_still_2

    sys.stdout.write(plan_still_2(chosen, store, resources))
