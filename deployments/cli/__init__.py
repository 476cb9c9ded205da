"""The `still` command. Subcommands are imported when called, so that `--help` stays fast.

Each subcommand is a thin module beside this one; its logic lives in `still_core` or `flows`. Its
help is its docstring.
"""

from __future__ import annotations

import ast
import errno
import os
import select
import signal
import sys
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from cyclopts import App

from deployments.cli.ending import end_if_asked
from still_core.errors import StillError, explain

COMMANDS = {
    "run": "run:run",
    "plan": "run:plan",
    "report": "report:report",
    "watch": "watch:watch",
    "lineage": "lineage:lineage",
    "verify": "verify:verify",
    "doctor": "doctor:doctor",
    "up": "services:up",
    "down": "services:down",
}
"""Module and function by the command's name."""
GROUPS = {
    "recipe": (
        "Look into recipes before a run.",
        {"show": "recipe:show", "fields": "recipe:fields"},
    ),
    "data": (
        "Build, inspect and decontaminate training data.",
        {
            "build": "data:build",
            "funnel": "data:funnel",
            "show": "data:show",
            "decontaminate": "data:decontaminate",
        },
    ),
    "bank": (
        "Look into the rollout bank.",
        {
            "ls": "bank:ls",
            "show": "bank:show",
            "stats": "bank:stats",
            "export": "bank:export",
            "gc": "bank:gc",
            "regrade": "bank:regrade",
        },
    ),
    "store": (
        "Look into the object store, and free what nothing needs.",
        {
            "ls": "store:ls",
            "gc": "store:gc",
            "retain": "store:retain",
            "quarantine": "store:quarantine",
        },
    ),
    "model": (
        "Make models to start from.",
        {"small": "model:small", "backbone": "model:backbone"},
    ),
    "sandbox": ("Run model-written code in isolation.", {"run": "sandbox:run"}),
}


def build_app() -> App:
    """The command tree; nothing behind a command is imported."""
    app = App(name="still", help="Turn a language model into one that thinks before it answers.")
    _add(app, COMMANDS)
    for name, (text, commands) in GROUPS.items():
        group = App(name=name, help=text)
        _add(group, commands)
        app.command(group)
    return app


def _add(app: App, commands: dict[str, str]) -> None:
    for name, place in commands.items():
        app.command(f"deployments.cli.{place}", name=name, help=_docstring(place))


def _docstring(place: str) -> str:
    """A command's docstring, read from its source: importing all of them takes half a second."""
    module, _, name = place.partition(":")
    functions = (node for node in _parsed(module).body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(node) or "" for node in functions if node.name == name)


@lru_cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))


def _is_read(stream: TextIO) -> bool:
    """Whether the other end of the stream is open."""
    asked = select.poll()
    asked.register(stream, 0)  # what is wrong with it is told in any case
    return not asked.poll(0)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    try:
        try:
            build_app()()
        finally:
            # Python's own flush comes too late to tell `| head` from a fault.
            sys.stdout.flush()
    except StillError as error:
        print(f"still: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise
        # `| head` has enough. What is left must not fail once more at Python's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(
            f"still: {explain('no file has so long a name', got=error.filename)}", file=sys.stderr
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        end_if_asked()
        print("still: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        end_if_asked()
