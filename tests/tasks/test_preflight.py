"""What a run is identified by before any work: the files that it reads, as they are now."""

from __future__ import annotations

import shutil
from pathlib import Path

from still_core.miniature import backbone_directory
from still_core.recipes.loading import load_recipe
from still_core.recipes.recipe import Resources
from tasks.preflight import preflight


def test_a_local_teachers_weights_are_part_of_what_a_run_reads(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(backbone_directory(), tmp_path / "teacher"))
    teacher = ["distil.teachers.0.kind=local", f"distil.teachers.0.source={folder}"]
    recipe = load_recipe("miniature", teacher)

    def read_now() -> dict[str, dict[str, str]]:
        return preflight(recipe, str(tmp_path / "store"), Resources()).teachers

    before = read_now()
    assert set(before) == {str(folder)}
    (folder / "generation_config.json").write_text("{}")
    changed = read_now()[str(folder)].items() - before[str(folder)].items()
    assert {name for name, _ in changed} == {"generation_config.json"}
