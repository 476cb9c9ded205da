"""The report's plots as inline SVG: no files, no fonts, no network, the same bytes each time.

data -> matplotlib figure -> SVG text whose ink is `currentColor`, so that one drawing reads well on
a light and on a dark page.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from still_core.evaluate.answers import DifficultyRate
from still_core.report.data import Curve, ExploreRound, ModelRow, StageTime
from still_core.report.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text colour until the SVG is written; no plot uses it for anything else."""
PALETTE = ("#3d85c6", "#e0782f", "#2e9e74", "#c4508f", "#8b79d9", "#ad8f14", "#6b7f8f", "#c0463c")
"""Mid tones with at least 3:1 contrast on white and on near-black."""
MAX_TICK_LABEL = 28


def accuracy_plot(rows: Sequence[ModelRow]) -> str:
    """Accuracy per row with 95 % intervals, one panel per level, one line per benchmark."""
    levels = list(dict.fromkeys(each.level for row in rows for each in row.benchmarks.values()))
    figure, panels = _figure(len(levels))
    for axes, level in zip(panels, levels, strict=True):
        names = list(
            dict.fromkeys(
                name for row in rows for name, each in row.benchmarks.items() if each.level == level
            )
        )
        for index, name in enumerate(names):
            points = [
                (x, row.benchmarks[name]) for x, row in enumerate(rows) if name in row.benchmarks
            ]
            # A small shift keeps the intervals of several benchmarks apart.
            shift = 0.06 * (index - (len(names) - 1) / 2)
            _intervals(
                axes,
                [x + shift for x, _ in points],
                [(each.accuracy, each.low, each.high) for _, each in points],
                name,
                index,
            )
        axes.set_title(_shorten(f"{level} level"))
        axes.set_ylim(-2, 102)
        axes.set_ylabel("accuracy, %")
        _name_rows(axes, [row.label for row in rows])
        _legend(axes)
    return _svg(figure, "accuracy")


def thought_plot(rows: Sequence[ModelRow]) -> str:
    """Mean thought length per row, one bar per level."""
    levels = list(dict.fromkeys(level for row in rows for level in row.levels))
    figure, (axes,) = _figure(1)
    width = 0.8 / max(len(levels), 1)
    for index, level in enumerate(levels):
        points = [(x, row.levels[level]) for x, row in enumerate(rows) if level in row.levels]
        axes.bar(
            [x + width * (index - (len(levels) - 1) / 2) for x, _ in points],
            [each.thought_tokens for _, each in points],
            width,
            label=f"{level} level",
            color=PALETTE[index % len(PALETTE)],
        )
    axes.set_ylabel("thought tokens, mean")
    _name_rows(axes, [row.label for row in rows])
    _legend(axes)
    return _svg(figure, "thought")


def curve_plot(curves: Sequence[Curve]) -> str:
    """Training loss by step, one line per model; gaps where the loss was not finite."""
    figure, (axes,) = _figure(1)
    for index, curve in enumerate(curves):
        losses = [float("nan") if loss is None else loss for loss in curve.loss]
        axes.plot(curve.steps, losses, label=curve.model, **_style(index, marker=False))
    finite = [loss for curve in curves for loss in curve.loss if loss is not None and loss > 0]
    if finite and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per response token")
    _legend(axes)
    return _svg(figure, "curves")


def difficulty_plot(rates: Sequence[DifficultyRate]) -> str:
    """Accuracy by difficulty, one panel per domain, one line per model."""
    domains = list(dict.fromkeys(rate.domain for rate in rates))
    methods = list(dict.fromkeys(rate.method for rate in rates))
    figure, panels = _figure(len(domains))
    for axes, domain in zip(panels, domains, strict=True):
        for index, method in enumerate(methods):
            mine = [rate for rate in rates if rate.domain == domain and rate.method == method]
            _intervals(
                axes,
                [rate.difficulty + 0.07 * (index - (len(methods) - 1) / 2) for rate in mine],
                [(rate.accuracy, rate.low, rate.high) for rate in mine],
                method,
                index,
            )
        axes.set_title(_shorten(domain))
        axes.set_ylim(-2, 102)
        axes.set_xlabel("difficulty")
        axes.set_ylabel("accuracy, %")
    _common_legend(figure, panels)
    return _svg(figure, "difficulty")


def attempt_plot(explorations: Sequence[ExploreRound]) -> str:
    """Left: problems solved so far by attempt. Right: chance of each attempt that is made."""
    from matplotlib.ticker import MaxNLocator

    figure, panels = _figure(2)
    for index, each in enumerate(explorations):
        attempts = [rate.attempt for rate in each.attempts]
        style, label = _style(index), f"round {each.round}"
        panels[0].plot(
            attempts, [100 * rate.cumulative for rate in each.attempts], label=label, **style
        )
        panels[1].plot(attempts, [100 * rate.rate for rate in each.attempts], label=label, **style)
    for axes, title in zip(panels, ("Solved so far", "Solved at this attempt"), strict=True):
        axes.set_title(title)
        axes.set_xlabel("attempt")
        axes.set_ylabel("% of problems" if axes is panels[0] else "% of problems that had one")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)
    return _svg(figure, "attempts")


def stage_plot(stages: Sequence[StageTime]) -> str:
    """Time by stage; cached stages are pale."""
    figure, (axes,) = _figure(1, height=0.9 + 0.24 * len(stages))
    names = [_shorten(stage.name) for stage in stages]
    axes.barh(
        range(len(stages)),
        [stage.seconds for stage in stages],
        color=[PALETTE[6] if stage.cached else PALETTE[0] for stage in stages],
        alpha=0.9,
    )
    axes.set_yticks(range(len(stages)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds; grey: cached")
    return _svg(figure, "stages")


def _figure(num_panels: int, *, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    width = 6.4 if num_panels == 1 else 4.6 * num_panels
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels = list(figure.subplots(1, max(num_panels, 1), squeeze=False)[0])
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.grid(color=INK, alpha=0.13, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, alpha=0.5)
        axes.tick_params(color=INK, labelcolor=INK, labelsize=8.5, length=3)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set(color=INK, fontsize=9.5)
    return figure, panels


def _intervals(
    axes: Axes,
    xs: Sequence[float],
    points: Sequence[tuple[float, float, float]],
    label: str,
    index: int,
) -> None:
    """A line of accuracies with their intervals, shares in [0, 1] drawn in percent."""
    if not points:
        return
    middle = [100 * accuracy for accuracy, _, _ in points]
    below = [100 * (accuracy - low) for accuracy, low, _ in points]
    above = [100 * (high - accuracy) for accuracy, _, high in points]
    axes.errorbar(
        xs, middle, yerr=[below, above], label=label, capsize=2.5, elinewidth=1.0, **_style(index)
    )


def _style(index: int, *, marker: bool = True) -> dict[str, Any]:
    # The marker differs too: colour alone does not reach every reader.
    shape = {"marker": "os^Dvp*X"[index % 8], "markersize": 4.5} if marker else {}
    return {"color": PALETTE[index % len(PALETTE)], "linewidth": 1.4, **shape}


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    slanted = len(labels) > 4 or max(map(len, labels)) > 12
    axes.set_xticks(range(len(labels)), [_shorten(label) for label in labels])
    if slanted:
        for text in axes.get_xticklabels():
            text.set(rotation=20, ha="right", rotation_mode="anchor")


def _shorten(label: str) -> str:
    # A dollar sign would start mathtext, and a malformed formula ends the whole report.
    short = label if len(label) <= MAX_TICK_LABEL else label[: MAX_TICK_LABEL - 3] + "..."
    return visible(short).replace("$", r"\$")


def _common_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below panels that draw the same models: inside them it would hide points."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    entries = {
        label: handle
        for handles, labels in found
        for handle, label in zip(handles, labels, strict=True)
    }
    figure.legend(
        list(entries.values()),
        [_shorten(label) for label in entries],
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        labelcolor=INK,
        frameon=False,
        handlelength=1.4,
    )


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    axes.legend(
        handles,
        [_shorten(label) for label in labels],
        fontsize=8,
        labelcolor=INK,
        frameon=False,
        handlelength=1.4,
    )


def _svg(figure: Figure, salt: str) -> str:
    """The figure as an `<svg>` element that stands alone inside a page.

    `salt` makes the ids of clip paths differ between plots of one page and stay equal between runs.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = StringIO()
    with (
        warnings.catch_warnings(),
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}),
    ):
        # Text stays text in the SVG: the reader's browser has the glyphs that ours lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S
    )
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # Ids of groups (`axes_1`, `text_3`) repeat from plot to plot and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    return svg.replace(INK, "currentColor").replace("\n", "").strip()
