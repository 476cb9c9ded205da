"""Who hears of a stage's progress: the terminal and the run's heartbeat."""

from __future__ import annotations

from still_core.progress import Progress, ProgressListener
from still_core.store import Store


def listener(store: Store, run: str) -> ProgressListener:
    """Tell the terminal (a bar, or a line every few seconds) and the heartbeat of `run`."""
    from still_core.heartbeat import Heartbeat
    from still_core.terminal import TerminalProgress

    terminal, heartbeat = TerminalProgress(), Heartbeat(store, run)

    def tell(progress: Progress) -> None:
        terminal(progress)
        heartbeat(progress)

    return tell
