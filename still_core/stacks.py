"""Stacks of this process's threads, and where one thread of a dump stands."""

from __future__ import annotations

import faulthandler
import re
import tempfile
from pathlib import PurePath

_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')


def thread_stacks() -> str:
    """Stacks of all threads of this process, innermost call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def innermost_frame(stacks: str, *, file: str, function: str) -> str:
    """Where the thread that passes through a function stands, e.g. `step (vllm.py:99)`.

    Args:
        stacks: what `thread_stacks` gave.
        file: name of the function's file, without folders.
        function: what only the wanted thread runs.
    """
    for thread in stacks.split("\n\n"):
        frames = [
            (PurePath(found["file"]).name, found["line"], found["function"])
            for found in _FRAME.finditer(thread)
        ]
        if any((where, name) == (file, function) for where, _, name in frames):
            where, line, name = frames[0]
            return f"{name} ({where}:{line})"
    return f"a place outside {function} ({file})"
