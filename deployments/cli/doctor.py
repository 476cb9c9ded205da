"""`still doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

import json as json_text
import sys
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot


def doctor(
    *,
    store: StoreRoot = DEFAULT_STORE,
    json: Annotated[bool, Parameter(negative="", help="Print the findings as JSON.")] = False,
) -> None:
    """Check versions, memory, cores, GPU, disk, store, Prefect and Ray.

    The exit code is 1 when something stands in the way of the main job.
    """
    from still_core.doctor import examine, failed

    findings = examine(store)
    if json:
        sys.stdout.write(json_text.dumps([each.to_json() for each in findings], indent=1) + "\n")
    else:
        _print_table([each.to_json() for each in findings])
    if failed(findings):
        raise SystemExit(1)


def _print_table(findings: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    for each in findings:
        found = Text(each["found"])
        if each["remedy"]:
            found.append(f"\n-> {each['remedy']}", style="bold")
        status = Text(each["status"], style=colours[each["status"]])
        table.add_row(status, Text(each["name"]), found)
    Console().print(table)
