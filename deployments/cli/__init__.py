"""The `still` command. Subcommands are imported when called, so that `--help` stays fast.

Each subcommand is a thin module beside this one; its logic lives in `still_core` or `flows`.
"""

from __future__ import annotations

import sys

from cyclopts import App

from deployments.cli.ending import end_if_asked
from still_core.errors import StillError

COMMANDS = {
    "run": ("run:run", "Run the STILL-2 loop; what is cached is not done again."),
    "plan": ("run:plan", "Print the DAG, what is cached, what will run and what it will cost."),
    "report": ("report:report", "Show the report of a run."),
    "watch": ("watch:watch", "Show what a run is doing, and where it is stuck."),
    "lineage": ("lineage:lineage", "Show what an artefact was made of and what came from it."),
    "verify": ("verify:verify", "Judge answers against gold."),
    "doctor": ("doctor:doctor", "Check this machine and say the remedy for what is wrong."),
    "up": ("services:up", "Start Prefect's server and UI, and a worker, and register deployments."),
    "down": ("services:down", "Stop what `still up` started."),
}
GROUPS = {
    "data": (
        "Build, inspect and decontaminate training data.",
        {
            "build": ("data:build", "Build a data set by a recipe."),
            "funnel": ("data:funnel", "Print what each rule kept and dropped."),
            "show": ("data:show", "Print one row and its lineage."),
            "decontaminate": ("data:decontaminate", "Find benchmark problems in training data."),
        },
    ),
    "bank": (
        "Look into the rollout bank.",
        {
            "ls": ("bank:ls", "List what the bank holds."),
            "show": ("bank:show", "Print one rollout with its provenance."),
            "stats": ("bank:stats", "Pass rates and token counts."),
            "export": ("bank:export", "Write rollouts to JSONL or Parquet."),
            "gc": ("bank:gc", "Name, and with --yes remove, what nothing refers to."),
            "regrade": ("bank:regrade", "Apply the present verifier to stored rollouts."),
        },
    ),
    "store": (
        "Look into the object store, and free what nothing needs.",
        {
            "ls": ("store:ls", "List published versions with their sizes."),
            "gc": ("store:gc", "Name, and with --yes remove, what nothing needs."),
        },
    ),
    "model": (
        "Make models to start from.",
        {
            "small": ("model:small", "A small untrained model, its tokenizer trained on files."),
            "backbone": ("model:backbone", "School the miniature's backbone from nothing."),
        },
    ),
    "sandbox": (
        "Run model-written code in isolation.",
        {"run": ("sandbox:run", "Run one Python file in the sandbox.")},
    ),
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


def _add(app: App, commands: dict[str, tuple[str, str]]) -> None:
    for name, (place, text) in commands.items():
        app.command(f"deployments.cli.{place}", name=name, help=text)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    try:
        build_app()()
    except StillError as error:
        print(f"still: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        end_if_asked()
        print("still: interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        end_if_asked()
