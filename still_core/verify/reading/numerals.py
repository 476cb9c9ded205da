"""Numbers as written: grouping, scientific notation, bases, mixed numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from still_core.verify.nodes import Node, NotReadError, names, number
from still_core.verify.reading.tokens import Token

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader

MAX_DECIMAL_EXPONENT = 400
"""Largest exponent of scientific notation (1.5E300)."""
_BASES = {
    word: str(base)
    for base, word in (
        *enumerate(names("two three four five six seven eight nine ten"), 2),
        (12, "twelve"),
        (16, "sixteen"),
    )
}


def read_numeral(reader: Reader, token: Token) -> Node:
    """A number, with a subscript one in another base; the number has been taken."""
    node = number_of(token.value)
    if reader.is_op("_"):
        reader.at += 1
        base = reader.group_text()
        base = _BASES.get(base.lower(), base)
        if not (base.isascii() and base.isdigit()) or not 2 <= int(base[:3]) <= 36:
            raise NotReadError("a number with a subscript that is no base")
        return Node("based", name=token.value, number=Fraction(int(base)))
    return node


def number_of(text: str) -> Node:
    """A number as written, grouping removed."""
    plain = text.replace(",", "").replace(" ", "")
    mantissa, _, exponent = plain.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_DECIMAL_EXPONENT:
        raise NotReadError("an exponent beyond the cap")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    if exponent:
        shown = len(decimals) - int(exponent) if decimals else 0
        return number(value * Fraction(10) ** int(exponent), shown)
    return number(value, len(decimals))


def mixed_number(node: Node, reader: Reader) -> Node | None:
    r"""`2\frac{5}{8}` and `1 1/2` are two and five eighths, one and a half."""
    whole = node.number
    if node.op != "num" or whole is None or whole.denominator != 1 or node.places:
        return None
    start = reader.at
    if reader.is_cmd("frac"):
        reader.at += 1
        top, bottom = reader.single(), reader.single()
    elif (
        reader.peek().kind == "num"
        and reader.peek().spaced
        and reader.peek(1).value == "/"
        and reader.peek(2).kind == "num"
    ):
        top, bottom = number_of(reader.peek().value), number_of(reader.peek(2).value)
        reader.at += 3
    else:
        if reader.peek().kind == "num":
            raise NotReadError("two numbers side by side")
        return None
    part, whole_part = top.number, bottom.number
    if part is not None and whole_part is not None and 0 < part < whole_part:
        return Node("add", (node, Node("div", (top, bottom))))
    reader.at = start
    if reader.peek().kind == "num":
        raise NotReadError("two numbers side by side")
    return None
