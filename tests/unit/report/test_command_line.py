"""`still report` and `still doctor` as functions: what they print and how they end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.cli import doctor as doctor_command
from deployments.cli.report import report as report_command
from still_core import doctor
from still_core.doctor import Finding, Status
from still_core.errors import ConfigError
from still_core.report.data import ReportData
from still_core.report.files import write_report


@pytest.fixture
def reports(report: ReportData, tmp_path: Path) -> Path:
    """A folder with one report."""
    write_report(replace(report, samples=(), curves=(), difficulty_rates=()), tmp_path / "run-1")
    return tmp_path


def test_report_prints_the_table_and_the_page(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_command(reports=reports)
    printed = capsys.readouterr().out
    assert "Backbone" in printed
    assert "run-1/report.html" in printed


def test_report_prints_json_or_the_path_and_nothing_else(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_command("run-1", reports=reports, json=True)
    assert json.loads(capsys.readouterr().out)["run"] == "still-2-miniature-7"
    report_command("run-1", reports=reports, path=True)
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_a_missing_report_is_one_line(reports: Path) -> None:
    with pytest.raises(ConfigError, match="run-1"):
        report_command("run-2", reports=reports)


def findings(*states: Status) -> list[Finding]:
    """Findings of these states."""
    return [Finding(name=f"n{s}", status=s, found="[bold]x[/bold]", remedy="do y") for s in states]


def test_doctor_ends_with_one_only_where_something_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda store: findings(Status.OK, Status.WARN))
    doctor_command.doctor()
    assert "-> do y" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda store: findings(Status.FAIL))
    with pytest.raises(SystemExit) as end:
        doctor_command.doctor(json=True)
    assert end.value.code == 1
    assert json.loads(capsys.readouterr().out) == [
        {"name": "nfail", "status": "fail", "found": "[bold]x[/bold]", "remedy": "do y"}
    ]


def test_doctor_prints_findings_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda store: findings(Status.OK))
    doctor_command.doctor()
    assert "[bold]x[/bold]" in capsys.readouterr().out
