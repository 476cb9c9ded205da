"""`still report`: print a run's accuracy table and say where its page is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(
    run: str = "latest",
    *,
    reports: Path = Path("reports"),
    path: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    open: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print a run's accuracy table, its claims, and where its page is.

    Parameters
    ----------
    run
        Name of the run, or a path to its report folder.
    reports
        The folder that holds all reports.
    path
        Print the path of the page and nothing else.
    json
        Print report.json and nothing else.
    open
        Show the page in a browser.
    """
    from still_core.report.files import find_report

    folder = find_report(run, reports=reports)
    page = folder / "report.html"
    if path:
        sys.stdout.write(f"{page}\n")
    elif json:
        sys.stdout.write((folder / "report.json").read_text(encoding="utf-8"))
    else:
        from still_core.report.terminal import print_summary

        print_summary(folder)
    if open:
        import webbrowser

        webbrowser.open(page.as_uri())
