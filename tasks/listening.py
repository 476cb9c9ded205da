"""Who hears of a stage's progress: the terminal, the run's heartbeat and the stage's watchdog."""

from __future__ import annotations

from still_core.progress import Progress, ProgressListener
from still_core.store import Store


def listener(store: Store, run: str) -> ProgressListener:
    """Tell the terminal (a bar, or a line every few seconds), heartbeat of `run` and watchdog."""
    from still_core.heartbeat import Heartbeat
    from still_core.terminal import TerminalProgress
    from still_core.watchdog import current_watchdog

    terminal, heartbeat = TerminalProgress(), Heartbeat(store, run)
    watchdog = current_watchdog()

    def tell(progress: Progress) -> None:
        terminal(progress)
        heartbeat(progress)
        if watchdog is not None:
            watchdog.hear(progress)

    return tell
