"""Reading what comes out of a sandbox: bounded, strict, without effects.

bytes -> length, depth, UTF-8, duplicate names, NaN -> plain JSON value, or the defect's name
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 64
# A string that never ends is taken to the end: each byte is looked at once.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class WireDefect(ValueError):
    """The bytes are not what they should be; the text is the defect's name."""


def strict_json(data: bytes, *, max_bytes: int) -> Any:
    """The JSON value in `data`.

    Raises:
        WireDefect: 'too long', 'too deep' (more than 64 levels) or 'not JSON' (NaN, Infinity,
            duplicate names, numbers of more than 4,300 digits and broken UTF-8 included).
    """
    if len(data) > max_bytes:
        raise WireDefect("too long")
    depth = deepest = 0
    for token in _STRUCTURE.finditer(data):
        if token[0] in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in (b"]", b"}"):
            depth -= 1
    # Checked before the parser recurses.
    if deepest > MAX_DEPTH:
        raise WireDefect("too deep")
    try:
        return json.loads(
            data.decode(), parse_constant=_refuse, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError):
        raise WireDefect("not JSON") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate names")
    return table
