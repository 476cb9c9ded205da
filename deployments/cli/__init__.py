"""The `still` command. Subcommands are imported when called, so that `--help` stays fast.

Each subcommand is a thin module beside this one; its logic lives in `still_core` or `flows`.
"""

from __future__ import annotations

import sys

from cyclopts import App

from still_core.errors import StillError

app = App(name="still", help="Turn a language model into one that thinks before it answers.")

data = App(name="data", help="Build, inspect and decontaminate training data.")
bank = App(name="bank", help="Look into the rollout bank.")
sandbox = App(name="sandbox", help="Run model-written code in isolation.")
for group in (data, bank, sandbox):
    app.command(group)

app.command("deployments.cli.verify:verify", name="verify", help="Judge answers against gold.")
sandbox.command(
    "deployments.cli.sandbox:run", name="run", help="Run one Python file in the sandbox."
)
data.command("deployments.cli.data:build", name="build", help="Build a data set by a recipe.")
data.command(
    "deployments.cli.data:funnel", name="funnel", help="Print what each rule kept and dropped."
)
data.command("deployments.cli.data:show", name="show", help="Print one row and its lineage.")
data.command(
    "deployments.cli.data:decontaminate",
    name="decontaminate",
    help="Find benchmark problems in training data.",
)
for verb, text in {
    "ls": "List what the bank holds.",
    "show": "Print one rollout with its provenance.",
    "stats": "Pass rates and token counts.",
    "export": "Write rollouts to JSONL or Parquet.",
    "gc": "Name, and with --yes remove, what nothing refers to.",
    "regrade": "Apply the present verifier to stored rollouts.",
}.items():
    bank.command(f"deployments.cli.bank:{verb}", name=verb, help=text)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    try:
        app()
    except StillError as error:
        print(f"still: {error}", file=sys.stderr)
        raise SystemExit(2) from None
