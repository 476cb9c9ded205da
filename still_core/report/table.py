"""Table 2 of a run, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from still_core.evaluate.answers import DifficultyRate
from still_core.report.data import ModelRow, ReportData
from still_core.report.text import (
    cell,
    count,
    gain_text,
    lucky_text,
    p_value,
    percent,
    percent_range,
    table,
)

COUNT_WIDTH, SCORE_WIDTH, GAP = 7, 11, 3
"""Columns of the terminal: a count, a score (`97.5-100.0 `), and between two cells."""


def benchmark_names(data: ReportData) -> list[str]:
    """All benchmarks of all rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in data.rows for name in row.benchmarks))


def accuracy_table(data: ReportData, *, width: int = 120) -> str:
    """Table 2 as plain text: accuracy in percent, its 95 % interval, and `*` for p < 0.05.

    The star is the exact paired test against the row above. Ends with a line on how to read it.

    Args:
        data: the report.
        width: columns; benchmarks that do not fit beside the others go into further blocks.
    """
    names = benchmark_names(data)
    head = max(len(row.method) for row in data.rows) + 3 * COUNT_WIDTH + 4 * GAP
    widest = max([SCORE_WIDTH, *(len(line) for name in names for line in _folded(name))])
    fitting = max(1, (width - head) // (widest + GAP))
    blocks = [
        _terminal_block(data, names[start : start + fitting], width)
        for start in range(0, len(names), fitting)
    ]
    reading = (
        "accuracy in %, 95 % interval below; * beats or loses to the row above, "
        "paired test p < 0.05"
    )
    return "\n\n".join([*blocks, reading])


def _terminal_block(data: ReportData, names: list[str], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False, highlight=False)
    for heading in ("method", "distill", "explore", "thought\ntokens"):
        grid.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for name in names:
        n = max(row.benchmarks[name].n for row in data.rows if name in row.benchmarks)
        heading = "\n".join([*_folded(name), f"n = {n}"])
        grid.add_column(heading, justify="right", overflow="fold")
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


def _folded(name: str) -> list[str]:
    """A benchmark's name in two lines, broken before its last part: `arithmetic-` `normal`."""
    first, dash, last = name.rpartition("-")
    return [first + dash, last] if dash else [name]


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
    heads = ["Method", "Distill", "Explore", "Thought tokens", "Truncated", "Lucky"]
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
                lucky_text(row.lucky, row.lucky_checked),
                *(_markdown_cell(data, row, name) for name in names),
            ]
            for row in data.rows
        ],
        numeric_from=1,
    )


def _markdown_cell(data: ReportData, row: ModelRow, name: str) -> str:
    if name not in row.benchmarks:
        return "-"
    score = row.benchmarks[name]
    parts = [f"**{percent(score.accuracy)}** [{percent_range(score.low, score.high)}]"]
    if name in row.gain:
        backbone = data.rows[0].benchmarks[name].accuracy
        parts.append(gain_text(score.accuracy, backbone, row.gain[name]))
    if name in row.p_vs_previous:
        parts.append(p_value(row.p_vs_previous[name]))
    return ", ".join(parts)


def difficulty_grid(rates: Sequence[DifficultyRate]) -> tuple[list[str], list[list[str]]]:
    """Accuracy by difficulty: heads, and a row per domain and difficulty; a column per model.

    A cell is `accuracy low-high (thought tokens)`; plain text, not escaped.
    """
    methods = list(dict.fromkeys(rate.method for rate in rates))
    places = sorted({(rate.domain, rate.difficulty) for rate in rates})
    found = {(rate.domain, rate.difficulty, rate.method): rate for rate in rates}
    rows = []
    for domain, difficulty in places:
        mine = [found.get((domain, difficulty, method)) for method in methods]
        sizes = max(rate.n for rate in mine if rate is not None)
        rows.append(
            [domain, f"{difficulty:g}", str(sizes), *("-" if r is None else _rate(r) for r in mine)]
        )
    return ["Domain", "Difficulty", "n", *methods], rows


def _rate(rate: DifficultyRate) -> str:
    interval = percent_range(rate.low, rate.high)
    return f"{percent(rate.accuracy)} {interval} ({rate.thought_tokens:.0f})"
