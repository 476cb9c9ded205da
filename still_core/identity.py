"""Identity: canonical digests and derived seeds, stable across processes and machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

DIGEST_LENGTH = 16
"""Hex digits kept of a sha256 for ids and keys: 64 bits, collision odds < 1e-7 at 1e6 items."""


def canonical(value: Any) -> Any:
    """`value` as plain JSON types with a stable order.

    Dataclasses and pydantic models become objects; tuples become lists; enums their value.

    Raises:
        TypeError: a set or another type whose order or text is not stable.
    """
    if isinstance(value, BaseModel):
        return canonical(value.model_dump(mode="python"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"no canonical form for {type(value).__name__}: {value!r}")


def canonical_json(value: Any) -> str:
    """The canonical form as compact JSON text, sorted keys, ASCII."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))


def digest(value: Any, *, length: int = DIGEST_LENGTH) -> str:
    """First `length` hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def derive_seed(*parts: int | str) -> int:
    """A 31-bit seed from the parts, e.g. (recipe seed, round, problem id, sample index)."""
    return (
        int(hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:8], 16) & 0x7FFFFFFF
    )
