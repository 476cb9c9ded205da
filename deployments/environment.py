"""The environment that every part of a run wants, set before Prefect, Ray or vLLM load."""

from __future__ import annotations

import os

DEFAULTS = {
    # The embedded server needs 10-50 s on two cores; Prefect's own patience is 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "still_core",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Progress is shown by `still_core.terminal`, one bar a stage.
    "TQDM_DISABLE": "1",
}


def prepare_environment() -> None:
    """Fill in what the user has not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
