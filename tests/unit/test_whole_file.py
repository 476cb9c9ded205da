"""A file that a person asked for: whole or not at all, and no other file's trouble in its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.whole_file import whole_file


def write(target: Path, block: Callable[[Path], object]) -> None:
    with whole_file(target) as staged:
        block(staged)


def test_the_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with whole_file(target) as staged:
        staged.write_text("all of it")
        assert not target.exists()
    assert target.read_text() == "all of it"
    assert list(target.parent.iterdir()) == [target]


def test_an_old_file_stays_and_nothing_is_left_where_the_block_fails(tmp_path: Path) -> None:
    def fail_half_way(staged: Path) -> None:
        staged.write_text("half")
        raise KeyError

    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(KeyError):
        write(target, fail_half_way)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("target", ["file/x.txt", "folder"])
def test_a_place_that_takes_no_file_is_said(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="can not be written"):
        write(tmp_path / target, lambda staged: staged.write_text("text"))


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    def fill(staged: Path) -> None:
        staged.unlink()
        staged.symlink_to("/dev/full")
        staged.write_text("more than fits")

    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path / "x", fill)


def test_trouble_with_a_file_that_the_block_reads_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"):
        write(tmp_path / "x", lambda _: (tmp_path / "source").read_text())
