"""Progress of long work, told to whoever listens (a terminal bar, a heartbeat)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One stage's progress at one moment."""

    stage: str
    done: int
    total: int | None
    """None where the end is not known."""
    unit: str
    """What is counted: `rollouts`, `steps`, `answers`, `rows`, ..."""
    facts: dict[str, float] = field(default_factory=dict)
    """Further figures by name, e.g. `correct`, `tokens_per_s`, `loss`."""


ProgressListener = Callable[[Progress], None]
