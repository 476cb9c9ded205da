"""The backbone that ships with the package is made by a flow of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]


def test_a_short_schooling_gives_a_model_folder_and_is_cached(tmp_path: Path) -> None:
    from flows.backbone import miniature_backbone
    from still_core.miniature.recipe import SchoolingRecipe
    from still_core.train.model_folder import check_model_folder
    from tasks.runlog import stage_log

    schooling = SchoolingRecipe(num_steps=2, hidden_size=32, num_layers=1, num_heads=2)
    folder = miniature_backbone(schooling=schooling, store=str(tmp_path))
    check_model_folder(Path(folder))
    with stage_log() as log:
        assert miniature_backbone(schooling=schooling, store=str(tmp_path)) == folder
    assert [run.cached for run in log] == [True]
