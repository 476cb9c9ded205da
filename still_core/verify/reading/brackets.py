"""What stands in brackets: parentheses, tuples, intervals, sets, absolute values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import Node, NotReadError
from still_core.verify.reading.numerals import number_of

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


def read_bracketed(reader: Reader, opening: str) -> Node:
    """A parenthesis, interval, tuple or set; the opening sign has been taken."""
    reader.deeper()
    bars, reader.bars = reader.bars, 0
    builder = _builder(reader) if opening == "\\{" else None
    parts: list[Node] = [] if builder is None else [builder]
    closers = (")", "]", "\\}", "}")
    while builder is None and not reader.is_op(*closers):
        if reader.is_op(",", ";"):
            reader.at += 1
            continue
        for part in _split_number(reader) or [reader.relation()]:
            parts.append(part)
        if not reader.is_op(",", ";", *closers):
            raise NotReadError(f"unclosed {opening}")
    if reader.peek().kind == "end":
        raise NotReadError(f"unclosed {opening}")
    closing = reader.take().value
    reader.bars = bars
    reader.depth -= 1
    if opening == "\\{" and closing in ("\\}", "}"):
        return builder or Node("set", tuple(parts))
    if not parts:
        raise NotReadError("empty brackets")
    if opening == "{" and closing == "}":
        return parts[0] if len(parts) == 1 else Node("group", tuple(parts), "{}")
    if opening not in ("(", "[") or closing not in (")", "]"):
        raise NotReadError(f"{opening} closed by {closing}")
    if len(parts) == 1:
        return parts[0]
    return Node("group", tuple(parts), opening + closing)


def _split_number(reader: Reader) -> list[Node] | None:
    """In brackets `100,200` are two numbers, `1 000` is one."""
    token = reader.peek()
    following = reader.peek(1)
    if token.kind != "num" or "," not in token.value:
        return None
    if following.kind != "op" or following.value not in (",", ";", ")", "]", "\\}", "}"):
        return None
    reader.at += 1
    return [number_of(part) for part in token.value.split(",")]


def _builder(reader: Reader) -> Node | None:
    r"""`\{x \mid condition\}` is its condition; None where no builder stands here."""
    ahead = 1
    if reader.peek().kind not in ("word", "cmd"):
        return None
    if reader.peek(ahead).kind == "cmd" and reader.peek(ahead).value == "in":
        while ahead < 8 and reader.peek(ahead).value not in ("mid", "|", ":"):
            ahead += 1
    sign = reader.peek(ahead)
    if sign.value not in ("mid", "|", ":"):
        return None
    reader.at += ahead + 1
    condition = reader.relation()
    if not reader.is_op("\\}", "}"):
        raise NotReadError("a set builder with several conditions")
    return condition


def read_absolute(reader: Reader, sign: str) -> Node:
    """`|x|`; the opening bar has been taken."""
    reader.deeper()
    reader.bars += 1
    inner = reader.expression()
    reader.expect(sign)
    reader.bars -= 1
    reader.depth -= 1
    return Node("call", (inner,), "abs")


def read_fenced(reader: Reader, opening: str, closing: str) -> Node:
    """`\\lfloor x \\rfloor` and its kin; the opening command has been taken."""
    reader.deeper()
    bars, reader.bars = reader.bars, 0
    inner = reader.expression()
    if not reader.is_cmd(closing):
        raise NotReadError(f"unclosed \\{opening}")
    reader.at += 1
    reader.bars = bars
    reader.depth -= 1
    name = {"lfloor": "floor", "lceil": "ceil"}.get(opening, "abs")
    return Node("call", (inner,), name)


def read_vector(reader: Reader) -> Node:
    """`\\langle 1, 2 \\rangle` as a tuple; the opening command has been taken."""
    parts = [reader.relation()]
    while reader.is_op(",", ";"):
        reader.at += 1
        parts.append(reader.relation())
    if not reader.is_cmd("rangle"):
        raise NotReadError("unclosed \\langle")
    reader.at += 1
    return Node("group", tuple(parts), "()")
