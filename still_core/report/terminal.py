"""What a run prints at its end: the accuracy table, the claims, and where the report is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from still_core.report.data import ReportData
from still_core.report.files import load_report
from still_core.report.markdown import SHOWN, summary_line
from still_core.report.table import accuracy_table

NARROW, WIDE = 60, 120
"""Columns of the table: at the least, and where no terminal says how many there are."""


def print_summary(page: Path) -> None:
    """Print the report whose page (or folder) this is."""
    folder = page if page.is_dir() else page.parent
    # A file or a pipe has no width of its own.
    width = shutil.get_terminal_size((WIDE, 0)).columns if sys.stdout.isatty() else WIDE
    sys.stdout.write(summary_text(load_report(folder), folder, width=max(width, NARROW)))


def summary_text(data: ReportData, folder: Path, *, width: int = WIDE) -> str:
    """The table, one line for each claim that does not show, and the paths."""
    hidden = [f"  {SHOWN[claim.shown]}: {claim.text}" for claim in data.claims if not claim.shown]
    lines = [
        accuracy_table(data, width=width),
        "",
        f"{summary_line(data)}.",
        *hidden,
        "",
        f"report: {folder / 'report.html'}",
        f"        {folder / 'report.md'}, {folder / 'report.json'}",
    ]
    return "\n".join(lines) + "\n"
