"""How numbers and hostile text are written in reports: model text never becomes markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, direction overrides and lone surrogates: they hide or reorder what stands."""

_MARKUP = re.compile(r"([\\`*_\[\]<|~$&])")
"""What means something inside a line of Markdown."""


def percent(share: float) -> str:
    """A share in [0, 1] in percent, one decimal."""
    return f"{100 * share:.1f}"


def percent_range(low: float, high: float) -> str:
    """An interval of shares in percent."""
    return f"{percent(low)}-{percent(high)}"


def p_value(p: float) -> str:
    """`p < 0.001` or `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def gain_text(accuracy: float, backbone: float, gain: float | None) -> str:
    """Gain relative to the backbone in percent, or in points where the backbone solves nothing."""
    return f"{100 * (accuracy - backbone):+.1f} points" if gain is None else f"{gain:+.1f} %"


def lucky_text(lucky: int, checked: int) -> str:
    """`3 of 120 (2.5 %)`, or that nothing can tell."""
    return f"{lucky} of {checked} ({percent(lucky / checked)} %)" if checked else "not checked"


def count(number: int) -> str:
    """A number of demonstrations; the backbone's 0 is a dash."""
    return str(number) if number else "-"


def figure(value: float) -> str:
    """`123456`, `2310` or `0.821`: whole numbers and large ones whole, three digits of others."""
    whole = abs(value) >= 100 or float(value).is_integer()
    return f"{value:.0f}" if whole else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: str) -> str:
    """Control characters, direction overrides and lone surrogates as U+FFFD; the rest as it is."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def clip(text: str, limit: int) -> str:
    """Head and tail of a long text, with a line that says how much is left out."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit * 2 // 3], text[-(limit // 3) :]
    return f"{head}\n[... {len(text) - len(head) - len(tail)} characters left out ...]\n{tail}"


def cell(text: str, limit: int = 160) -> str:
    """Text safe inside a Markdown table cell: one line, markup escaped, clipped."""
    line = " ".join(visible(text).split())
    return _MARKUP.sub(r"\\\1", line if len(line) <= limit else line[: limit - 3] + "...")


def fenced(text: str, limit: int = 4_000) -> str:
    """A Markdown code block that the text can not close, whatever back-ticks it holds."""
    body = clip(visible(text), limit)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int = 99) -> str:
    """A Markdown table of cells that are Markdown already; columns from `numeric_from` on right."""
    rule = ["---:" if index >= numeric_from else ":---" for index in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *rows))
