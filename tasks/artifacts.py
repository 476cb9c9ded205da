"""What the Prefect UI shows on a stage: tables and Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CELL = 400
"""Longest text in one table cell, in characters; the whole row stands in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One Prefect artifact."""

    key: str
    """Lowercase letters, digits and dashes."""
    type: str
    data: Any
    description: str

    def key_for(self, label: str) -> str:
        """The key with the stage's label, so that rounds stand side by side in the UI."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.key} {label}".lower()).strip("-")


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> Shown:
    """A table; cells are cut at `MAX_CELL` characters, figures that are not finite are null."""
    data = [{name: _cell(value) for name, value in row.items()} for row in rows]
    text = json.dumps(data, allow_nan=False)
    return Shown(key=key, type="table", data=text, description=description)


def markdown(key: str, text: str, description: str) -> Shown:
    """A Markdown page."""
    return Shown(key=key, type="markdown", data=text, description=description)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = str(value)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 3] + "..."
