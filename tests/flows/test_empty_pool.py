"""A run that has nothing to explore says so before any model work."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.still_2 import still_2
from still_core.errors import DataError
from still_core.recipes.loading import load_recipe
from still_core.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]


def test_a_pool_without_a_problem_ends_the_run_before_any_model_work(
    small_recipe_file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(small_recipe_file), ['pool.buckets=["other"]'])
    said = (
        r"the pool holds no problem to explore: got \"{'normal_math': 24} in explore\", expected "
        r"problems in pool.buckets \['other'\]; name buckets and sources"
    )
    with pytest.raises(DataError, match=said):
        still_2(recipe, store=str(tmp_path / "store"), reports=str(tmp_path / "reports"))
    assert {h.name for h in Store(str(tmp_path / "store")).list()} == {"collect-problems"}
