"""Progress on a terminal: one bar a stage; where there is no terminal, a line every few seconds."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from still_core.closing import Closing
from still_core.progress import Progress
from still_core.report.text import figure

LINE_EVERY_S = 10.0


class TerminalProgress(Closing):
    """A progress listener for people.

    Facts are printed behind the count: rollouts correct, tokens/s, loss, ... A stage whose count
    reaches its total is closed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._began = self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show this moment."""
        if progress.stage != self._stage:
            self.close()
            self._stage, self._began, self._said = progress.stage, time.monotonic(), 0.0
        if self._console.is_terminal:
            self._draw(progress)
        else:
            self._say(progress)
        if progress.total is not None and progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        """End the bar of the present stage."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._stage = None, None, ""

    def _draw(self, progress: Progress) -> None:
        if self._bar is None or self._task is None:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(progress.stage, unit=progress.unit, facts="")
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total or max(progress.done, 1),
            facts=describe_facts(progress),
        )

    def _say(self, progress: Progress) -> None:
        now = time.monotonic()
        finished = progress.total is not None and progress.done >= progress.total
        if not finished and now - self._said < LINE_EVERY_S:
            return
        self._said = now
        total = f"/{progress.total}" if progress.total is not None else ""
        left = time_left(progress, now - self._began)
        line = (
            f"{progress.stage}: {progress.done}{total} {progress.unit}  {describe_facts(progress)}"
        )
        print(line.rstrip() + (f"  {left:.0f} s left" if left else ""), file=sys.stderr, flush=True)


def describe_facts(progress: Progress) -> str:
    """`correct 41  tokens/s 2310  loss 0.82`."""
    named = {
        name.replace("_per_s", "/s").replace("_", " "): value
        for name, value in progress.facts.items()
    }
    return "  ".join(f"{name} {figure(value)}" for name, value in named.items())


def time_left(progress: Progress, elapsed_s: float) -> float | None:
    """Seconds left at the rate so far; None where the end or the rate is not known."""
    if elapsed_s < 1 or not progress.total or not 0 < progress.done < progress.total:
        return None
    return elapsed_s * (progress.total - progress.done) / progress.done
