"""Which stages a flow run went through, how long each took and whether it was cached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRun:
    """One stage of one run."""

    name: str
    seconds: float
    cached: bool


_stages: ContextVar[list[StageRun] | None] = ContextVar("stages", default=None)


@contextmanager
def stage_log() -> Iterator[list[StageRun]]:
    """Collect the stages that run inside the block, subflows included, in order."""
    stages: list[StageRun] = []
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)


def record_stage(run: StageRun) -> None:
    """Add a stage to the log of the run that is under way, if one is."""
    stages = _stages.get()
    if stages is not None:
        stages.append(run)
