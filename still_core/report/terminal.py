"""What a run prints at its end: the accuracy table, the claims, and where the report is."""

from __future__ import annotations

import sys
from pathlib import Path

from still_core.report.data import ReportData
from still_core.report.files import load_report
from still_core.report.markdown import SHOWN, summary_line
from still_core.report.table import accuracy_table


def print_summary(page: Path) -> None:
    """Print the report whose page (or folder) this is."""
    folder = page if page.is_dir() else page.parent
    sys.stdout.write(summary_text(load_report(folder), folder))


def summary_text(data: ReportData, folder: Path) -> str:
    """The table, one line for each claim that does not show, and the paths."""
    hidden = [f"  {SHOWN[claim.shown]}: {claim.text}" for claim in data.claims if not claim.shown]
    lines = [
        accuracy_table(data),
        "",
        f"{summary_line(data)}.",
        *hidden,
        "",
        f"report: {folder / 'report.html'}",
        f"        {folder / 'report.md'}, {folder / 'report.json'}",
    ]
    return "\n".join(lines) + "\n"
