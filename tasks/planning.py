"""Walking the DAG without running it: which stages are cached, which will run.

In planning mode a stage whose parents are all stored is looked up by its key; a stage that is not
stored, or hangs on one that is not, yields a pending handle and its own children are pending too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from still_core.store.handle import Handle

PENDING = "pending"
"""Digest of a handle whose artefact is not made yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStage:
    """One node of the plan."""

    name: str
    cached: bool
    reads: tuple[str, ...]
    """Labels of the stages whose results it reads."""


_plan: ContextVar[list[PlannedStage] | None] = ContextVar("plan", default=None)


@contextmanager
def planning() -> Iterator[list[PlannedStage]]:
    """Stages called inside the block are planned, not run."""
    plan: list[PlannedStage] = []
    token = _plan.set(plan)
    try:
        yield plan
    finally:
        _plan.reset(token)


def current_plan() -> list[PlannedStage] | None:
    """The plan under way, None when stages really run."""
    return _plan.get()


def pending(label: str) -> Handle:
    """Stands for the result of a stage that has still to run."""
    return Handle(name=label, version=PENDING, uri="", digest=PENDING)


def is_pending(value: Any) -> bool:
    """Whether the value is, or holds, the result of a stage that has still to run."""
    if isinstance(value, Handle):
        return value.digest == PENDING
    if isinstance(value, list | tuple):
        return any(is_pending(item) for item in value)
    return False
