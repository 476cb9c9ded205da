"""`still sandbox`: run model-written code in isolation."""

from __future__ import annotations

import json
from pathlib import Path

from still_core.errors import ConfigError, explain


def run(file: Path, *, timeout: float = 5.0, memory: int = 512) -> None:
    """Run one Python file in the sandbox and print one JSON object of what came of it.

    The exit code is 0 whatever the program did: its status is in the object. What it reads from
    its standard input is empty.

    Parameters
    ----------
    file
        Python source. Nothing else of this machine is there to see.
    timeout
        Wall-clock seconds.
    memory
        MiB of memory beyond the interpreter's own.
    """
    from still_core.sandbox import Limits, Sandbox

    try:
        code = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            explain("the file can not be read", got=str(error), remedy="name a Python source file")
        ) from None
    with Sandbox(Limits(timeout_s=timeout, memory_mb=memory), warm=0) as sandbox:
        print(json.dumps(sandbox.run(code).to_json()))
