"""A file that a person asked for: it appears whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from still_core.errors import ConfigError, explain


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A fresh file beside `path`, which takes its place when the block ends without an error.

    The file is made on entry, so that a folder that takes none is refused before any work.

    Raises:
        ConfigError: the folder or the file can not be written.
    """
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.touch()
        try:
            yield staged
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        ours = {None, str(staged), *map(str, path.parents)}
        if error.filename not in ours:
            raise  # of a file that the block reads
        raise ConfigError(
            explain(
                f"{path} can not be written",
                got=error.strerror or str(error),
                remedy="choose another file or free some space",
            )
        ) from error
