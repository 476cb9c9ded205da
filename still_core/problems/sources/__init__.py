"""Adapters for every source and benchmark that the papers name, by name in `ADAPTERS`."""

from still_core.problems.sources import choice, code, distilled, generic, mathematics, science
from still_core.problems.sources.adapter import (
    ADAPTERS,
    Adapter,
    Context,
    FilteredRow,
    ProblemDraft,
    Written,
    adapter,
)

__all__ = ["ADAPTERS", "Adapter", "Context", "FilteredRow", "ProblemDraft", "Written", "adapter"]

_MODULES = (choice, code, distilled, generic, mathematics, science)
