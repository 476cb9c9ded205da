"""One small run of the whole loop, shared by the tests of the flow."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from still_core.recipes.loading import load_recipe
from still_core.recipes.recipe import Still2Recipe

SMALL = {
    "base": "miniature",
    "name": "small",
    "rounds": 1,
    "problems": {
        "sources": [
            {"name": name, "adapter": "miniature", "path": f"miniature:arithmetic/normal?{query}"}
            for name, query in (
                ("normal", "count=80&seed=1"),
                ("streamed", "count=16&seed=2"),
                ("explore", "count=24&seed=3"),
            )
        ],
        "benchmarks": [
            {
                "name": f"arithmetic-{level}",
                "level": level,
                "source": {
                    "name": f"arithmetic-{level}",
                    "adapter": "miniature",
                    "path": f"miniature:arithmetic/{level}@held-out?count=12&seed=9",
                },
            }
            for level in ("normal", "hard")
        ],
    },
    "pool": {"sources": ["explore"], "problems_per_round": 12},
    "explore": {"max_attempts": 4},
    "sft": {"epochs": 12, "batch_size": 8},
    "distil": {
        "teachers": [
            {
                "name": name,
                "kind": "scripted",
                "source": name,
                "style": style,
                "problems": [problems],
            }
            for name, style, problems in (
                ("separate", "r1", "normal"),
                ("stream", "qwq", "streamed"),
            )
        ]
    },
}
"""The miniature with counts so small that a run takes about a minute."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended well, and where everything is."""

    recipe: Still2Recipe
    recipe_file: Path
    store: str
    reports: Path
    page: Path


@pytest.fixture(scope="session")
def small_recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe as a file, as a user would give it."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path


FOLDER = Path(__file__).parent
_shared = ExitStack()


@pytest.fixture(scope="session")
def shared_workers(prefect_server: None) -> None:
    """The flows of all tests in this folder use the same engines and ranks, one after the other."""
    from tasks.engines import workers_of_run

    _shared.enter_context(workers_of_run())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """No fixture lives as long as a folder without `__init__.py`."""
    if nextitem is None or FOLDER not in nextitem.path.parents:
        _shared.close()


@pytest.fixture(scope="session")
def finished_run(
    small_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory, shared_workers: None
) -> FinishedRun:
    """The whole loop with every real part: Prefect, Ray, vLLM, TRL."""
    from flows.still_2 import still_2

    root = tmp_path_factory.mktemp("run")
    recipe = load_recipe(str(small_recipe_file))
    store, reports = str(root / "store"), root / "reports"
    page = still_2(recipe, store=store, reports=str(reports))
    return FinishedRun(recipe, small_recipe_file, store, reports, Path(page))
