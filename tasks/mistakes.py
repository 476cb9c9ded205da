"""A user's mistake is one line in Prefect's logs too, not a traceback."""

from __future__ import annotations

import logging

from still_core.errors import StillError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class OneLine(logging.Filter):
    """Drops the traceback of errors that we raise on purpose; they say all there is to say."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record; strip the traceback of a `StillError`."""
        if record.exc_info and isinstance(record.exc_info[1], StillError):
            record.exc_info = None
        return True


def state_mistakes_in_one_line() -> None:
    """Install the filter once."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, OneLine) for known in logger.filters):
            logger.addFilter(OneLine())
