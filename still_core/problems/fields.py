"""Typed access to the fields of a raw row: what is missing or of another type is said by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from still_core.problems.rows import MalformedRow


def at(row: Any, path: str) -> Any:
    """The value at a dotted path (`reward_model.ground_truth`, `prompt.0.content`), else None.

    A key that itself holds dots is tried whole first.
    """
    if isinstance(row, Mapping) and path in row:
        return row[path]
    value = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def first(row: Any, *paths: str) -> Any:
    """The first value among the paths that is neither missing, None, NaN nor empty text."""
    for path in paths:
        value = at(row, path)
        if not (value is None or value != value or value == ""):
            return value
    return None


def text(row: Any, *paths: str) -> str:
    """A required text.

    Raises:
        MalformedRow: missing_field, mistyped_field or empty_field.
    """
    value = first(row, *paths)
    if value is None:
        raise MalformedRow("missing_field", " or ".join(paths))
    if not isinstance(value, str):
        raise MalformedRow("mistyped_field", f"{paths[0]}: {type(value).__name__}, expected text")
    if not value.strip():
        raise MalformedRow("empty_field", paths[0])
    return value.strip()


def optional_text(row: Any, *paths: str) -> str:
    """A text or "" where it is missing; a number becomes text.

    Raises:
        MalformedRow: mistyped_field for a list or object.
    """
    value = first(row, *paths)
    return "" if value is None else answer_text(value, paths[0])


def answer_text(value: Any, name: str) -> str:
    """An answer as text: numbers without a trailing `.0`, a list of one or more joined by commas.

    Raises:
        MalformedRow: mistyped_field for an object, a truth value or a number that is not finite.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        raise MalformedRow("mistyped_field", f"{name}: bool, expected an answer")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        return ", ".join(answer_text(item, name) for item in value)
    raise MalformedRow("mistyped_field", f"{name}: {type(value).__name__}, expected an answer")


def number(row: Any, *paths: str) -> float | None:
    """A number or None; `Level 5` and `"4.5"` count as numbers, other text as unknown.

    Raises:
        MalformedRow: mistyped_field for a list, object or truth value.
    """
    value = first(row, *paths)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise MalformedRow("mistyped_field", f"{paths[0]}: {type(value).__name__}, expected number")
    if isinstance(value, str):
        try:
            value = float(value.lower().removeprefix("level").strip())
        except ValueError:
            return None
    return float(value) if math.isfinite(value) else None


def texts(row: Any, path: str) -> list[str]:
    """A required list of texts.

    Raises:
        MalformedRow: missing_field or mistyped_field.
    """
    value = at(row, path)
    if value is None:
        raise MalformedRow("missing_field", path)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MalformedRow("mistyped_field", f"{path}: {type(value).__name__}, expected a list")
    if not all(isinstance(item, str) for item in value):
        raise MalformedRow("mistyped_field", f"{path}: not all items are texts")
    return list(value)
