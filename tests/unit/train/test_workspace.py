"""Work folders of training ranks: gone at the end, and after a kill with the next rank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from still_core.train.workspace import work_folder

KILLED = """
import os, signal
from still_core.train.workspace import work_folder
with work_folder() as folder:
    (folder / "model").write_text("weights")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_a_work_folder_is_empty_and_goes_at_the_end(tmp_path: Path) -> None:
    with work_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "model").write_text("weights")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_rank_left_goes_with_the_next_rank(tmp_path: Path) -> None:
    with work_folder() as mine:
        subprocess.run([sys.executable, "-c", KILLED], check=False)
        assert len(list(tmp_path.rglob("model"))) == 1
        with work_folder():
            assert list(tmp_path.rglob("model")) == []
        assert mine.is_dir()
