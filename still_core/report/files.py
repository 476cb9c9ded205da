"""Writes and reads report folders: reports/<run>/report.{md,html,json} and reports/latest."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from still_core.errors import ConfigError, DataError, explain
from still_core.report.claims import paper_claims
from still_core.report.data import ReportData
from still_core.report.markdown import render_markdown
from still_core.report.page import render_page

LATEST = "latest"


def write_report(data: ReportData, directory: Path) -> Path:
    """Write the three files and point `latest` beside `directory` to it.

    Each file appears whole or not at all, report.json last: its presence means "complete". Equal
    data give equal bytes.

    Args:
        data: the report; `paper_claims(data)` fills its claims where it has none.
        directory: `reports/<run>`; made if need be.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: the folder can not be written.
    """
    if not data.claims:
        data = replace(data, claims=tuple(paper_claims(data)))
    page = directory / "report.html"
    files = {
        directory / "report.md": render_markdown(data),
        page: render_page(data),
        directory / "report.json": json.dumps(data.to_json(), indent=1, allow_nan=False) + "\n",
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            _write(path, text)
        _point_latest(directory)
    except OSError as error:
        raise ConfigError(
            explain(
                f"the report folder {directory} can not be written",
                got=error.strerror,
                remedy="choose another folder or free some space",
            )
        ) from error
    return page


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    os.replace(fresh, path)


def _point_latest(directory: Path) -> None:
    """Relative, so that the folder can be moved; by rename, so that it never points nowhere."""
    if directory.name == LATEST:
        return
    fresh = directory.parent / f".{LATEST}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(directory.name)
    os.replace(fresh, directory.parent / LATEST)


def find_report(run: str = LATEST, *, reports: Path = Path("reports")) -> Path:
    """The folder of a run's report.

    Args:
        run: name of the run, `latest`, or a path to its folder.
        reports: the folder that holds all reports.

    Raises:
        ConfigError: there is no such report; says which there are.
    """
    for candidate in (reports / run, Path(run)):
        if (candidate / "report.json").is_file():
            return candidate.resolve()
    known = sorted(
        path.parent.name for path in reports.glob("*/report.json") if path.parent.name != LATEST
    )
    raise ConfigError(
        explain(
            f"no report in {reports}/",
            got=run,
            expected=", ".join(known[-8:]) or None,
            remedy="name one of these" if known else "run `still run` first",
        )
    )


def load_report(directory: Path) -> ReportData:
    """Read report.json of a report folder.

    Raises:
        DataError: it is missing, no JSON, or no report.
    """
    path = directory / "report.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(explain(f"{path} can not be read", got=str(error))) from error
    if not isinstance(value, dict):
        raise DataError(explain(f"{path} is not a report", got=type(value).__name__))
    return ReportData.from_json(value)
