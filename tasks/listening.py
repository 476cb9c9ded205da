"""Who hears of a stage's progress: the terminal, the run's heartbeat and the stage's watchdog."""

from __future__ import annotations

from dataclasses import replace

from prefect.context import TaskRunContext

from still_core.progress import Progress, ProgressListener
from still_core.store import Store


def listener(store: Store, run: str) -> ProgressListener:
    """Tell the terminal (a bar, or a line every few seconds), heartbeat of `run` and watchdog.

    What they hear bears the name of the task run, so that M_1's training is not M_2's.
    """
    from still_core.heartbeat import Heartbeat
    from still_core.terminal import TerminalProgress
    from still_core.watchdog import current_watchdog

    terminal, heartbeat = TerminalProgress(), Heartbeat(store, run)
    watchdog = current_watchdog()
    context = TaskRunContext.get()
    task_run = f"{context.task_run.name}: " if context else ""

    def tell(progress: Progress) -> None:
        progress = replace(progress, stage=f"{task_run}{progress.stage}")
        terminal(progress)
        heartbeat(progress)
        if watchdog is not None:
            watchdog.hear(progress)

    return tell
