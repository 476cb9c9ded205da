"""Caps on an answer's text, checked before any parser sees it. Linear in the length of the text."""

from __future__ import annotations

import re

MAX_CHARACTERS = 4_000
"""Longest answer that is read; the longest gold in MATH and Omni-MATH has under 400."""
MAX_DEPTH = 40
"""Deepest nesting of brackets."""
MAX_DIGITS = 400
"""Longest run of digits in one number."""

_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")


def over_cap(text: str) -> str | None:
    """Name of the first cap that `text` exceeds, None where it is within all."""
    if len(text) > MAX_CHARACTERS:
        return "size_cap"
    if _DIGITS.search(text):
        return "digits_cap"
    depth = 0
    for char in text:
        if char in "([{":
            depth += 1
            if depth > MAX_DEPTH:
                return "depth_cap"
        elif char in ")]}":
            depth = max(0, depth - 1)
    return None
