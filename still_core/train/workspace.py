"""The folder in which a training rank writes before it publishes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from still_core.store.lease import is_dead_here, this_process

PREFIX = "still-train-"
OWNER_FILE = "owner"


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder in the temporary folder, removed at the end.

    A killed rank can not remove its own, which may hold a checkpoint and a whole model: the next
    rank on its machine does.
    """
    _remove_left_behind(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        (Path(folder) / OWNER_FILE).write_text(this_process())
        inside = Path(folder) / "work"
        inside.mkdir()
        yield inside


def _remove_left_behind(root: Path) -> None:
    for owner in root.glob(f"{PREFIX}*/{OWNER_FILE}"):
        try:
            dead = is_dead_here(owner.read_text())
        except OSError:
            # Another rank removes it now, or it is somebody else's.
            continue
        if dead:
            shutil.rmtree(owner.parent, ignore_errors=True)
