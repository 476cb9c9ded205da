"""Table 2 of a run, for a terminal and as Markdown."""

from __future__ import annotations

from io import StringIO

from still_core.report.data import ModelRow, ReportData
from still_core.report.text import cell, count, p_value, percent, percent_range, table

BENCHMARKS_PER_BLOCK = 6
"""More benchmarks than this go into a second block, so that lines stay near 120 columns."""


def benchmark_names(data: ReportData) -> list[str]:
    """All benchmarks of all rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in data.rows for name in row.benchmarks))


def accuracy_table(data: ReportData, *, width: int = 120) -> str:
    """Table 2 as plain text: accuracy in percent, its 95 % interval, and `*` for p < 0.05.

    The star is the exact paired test against the row above. Ends with a line on how to read it.
    """
    names = benchmark_names(data)
    blocks = [
        _terminal_block(data, names[start : start + BENCHMARKS_PER_BLOCK], width)
        for start in range(0, len(names), BENCHMARKS_PER_BLOCK)
    ]
    reading = (
        "accuracy in %, 95 % interval below; * beats or loses to the row above, "
        "paired test p < 0.05"
    )
    return "\n".join([*blocks, reading])


def _terminal_block(data: ReportData, names: list[str], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False, highlight=False)
    for heading in ("method", "distill", "explore", "thought\ntokens"):
        grid.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for name in names:
        n = max(row.benchmarks[name].n for row in data.rows if name in row.benchmarks)
        grid.add_column(f"{name.replace('-', '-' + chr(10), 1)}\nn = {n}", justify="right")
    for row in data.rows:
        grid.add_row(
            row.method,
            count(row.distill),
            count(row.explore),
            f"{row.thought_tokens:.0f}",
            *(_terminal_cell(row, name) for name in names),
        )
    out = StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _terminal_cell(row: ModelRow, name: str) -> str:
    if name not in row.benchmarks:
        return "-"
    score = row.benchmarks[name]
    star = "*" if row.p_vs_previous.get(name, 1.0) < 0.05 else " "
    return f"{percent(score.accuracy)}{star}\n{percent_range(score.low, score.high)} "


def markdown_table(data: ReportData) -> str:
    """Table 2 as Markdown: per benchmark accuracy, interval, gain over the backbone and test."""
    names = benchmark_names(data)
    sizes = {
        name: max(row.benchmarks[name].n for row in data.rows if name in row.benchmarks)
        for name in names
    }
    heads = ["Method", "Distill", "Explore", "Thought tokens", "Truncated"]
    heads += [f"{cell(name)} (n = {sizes[name]})" for name in names]
    return table(
        heads,
        [
            [
                row.method,
                count(row.distill),
                count(row.explore),
                f"{row.thought_tokens:.1f}",
                f"{percent(row.truncated_rate)} %",
                *(_markdown_cell(row, name) for name in names),
            ]
            for row in data.rows
        ],
        numeric_from=1,
    )


def _markdown_cell(row: ModelRow, name: str) -> str:
    if name not in row.benchmarks:
        return "-"
    score = row.benchmarks[name]
    parts = [f"**{percent(score.accuracy)}** [{percent_range(score.low, score.high)}]"]
    if row.gain.get(name) is not None:
        parts.append(f"{row.gain[name]:+.1f} %")
    if name in row.p_vs_previous:
        parts.append(p_value(row.p_vs_previous[name]))
    return ", ".join(parts)
