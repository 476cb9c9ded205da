"""Derivatives, limits, integrals, sums and products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import Node, NotReadError, number
from still_core.verify.reading.numerals import number_of
from still_core.verify.reading.powers import read_exponent
from still_core.verify.reading.tokens import Token

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


def read_derivative(reader: Reader) -> Node | None:
    r"""`\frac{d}{dx} f` and `\frac{df}{dx}`; None where the fraction is none of the two."""
    start = reader.at
    top = reader.peek(1)
    if not reader.is_op("{") or top.kind != "word" or top.value[0] != "d":
        return None
    try:
        reader.at += 2
        body = None
        if len(top.value) > 1:
            reader.at -= 1
            reader.tokens[reader.at] = Token("word", top.value[1:], False)
        if not reader.is_op("}"):
            body = reader.expression()
        reader.expect("}")
        reader.expect("{")
        variable = _differential(reader)
        reader.expect("}")
    except NotReadError:
        variable = None
    if variable is None:
        reader.at = start
        reader.tokens[start + 1] = top
        return None
    return Node("bound", (body if body is not None else reader.term(), variable), "diff")


def _differential(reader: Reader) -> Node | None:
    """`dx` or `d\\theta` at this place, as the variable."""
    token = reader.peek()
    if token.kind != "word" or token.value[0] != "d" or len(token.value) > 2:
        return None
    reader.at += 1
    if len(token.value) == 2:
        return Node("sym", name=token.value[1])
    return reader.atom()


def read_limit(reader: Reader) -> Node:
    r"""`\lim_{x \to 3^+} body`: body, variable, place; the side is part of the name."""
    reader.expect("_")
    reader.expect("{")
    variable = reader.atom()
    if reader.relation_sign() != "->" or variable.op != "sym":
        raise NotReadError("\\lim without an arrow")
    place, side = _place(reader), ""
    if reader.is_op("^"):
        raise NotReadError("\\lim with a power")
    if reader.is_op("+", "-"):
        side = reader.take().value
    reader.expect("}")
    body = reader.term()
    return Node("bound", (body, variable, place), "lim-" if side == "-" else "lim")


def _place(reader: Reader) -> Node:
    """A limit's place, whose side (`3^+`, `3^{-}`) is left standing."""
    negative = reader.is_op("-")
    reader.at += negative
    node = reader.atom()
    if reader.is_op("^") and reader.peek(1).value in ("+", "-"):
        reader.at += 1
    elif reader.is_op("^") and reader.peek(2).value in ("+", "-") and reader.peek(3).value == "}":
        reader.at += 1
        reader.tokens[reader.at : reader.at + 3] = [reader.peek(1)]
    return Node("neg", (node,)) if negative else node


def read_integral(reader: Reader) -> Node:
    r"""`\int_a^b body dx`: body, variable, and the bounds where there are some."""
    bounds: dict[str, Node] = {}
    while reader.is_op("_", "^"):
        sign = reader.take().value
        bounds[sign] = _limit_value(reader)
    variable, inner = _integrand(reader)
    body = number(1)
    if inner:
        inside = type(reader)(inner, reader.loose)
        body = inside.expression()
        if inside.peek().kind != "end":
            raise NotReadError("\\int of something else")
    return Node("bound", (body, variable, *(bounds[s] for s in "_^" if s in bounds)), "int")


def _integrand(reader: Reader) -> tuple[Node, list[Token]]:
    r"""The variable and the tokens of what is integrated, up to `dx` or with it in a numerator."""
    start, depth, end = reader.at, 0, reader.at
    while end < len(reader.tokens) and not (depth <= 1 and _is_differential(reader, end)):
        token = reader.tokens[end]
        depth += (token.value in ("{", "(")) - (token.value in ("}", ")"))
        end += 1
    if end >= len(reader.tokens):
        raise NotReadError("\\int without a differential")
    word = reader.tokens[end].value
    lead = word[:-1] if word == "d" else word[:-2]
    reader.at = end
    reader.tokens[end] = Token("word", word[len(lead) :], False)
    variable = _differential(reader)
    if variable is None:
        raise NotReadError("\\int without a variable")
    inner = reader.tokens[start:end] + ([Token("word", lead, False)] if lead else [])
    if not depth:
        return variable, inner
    # The rest of the fraction belongs to the body, and the differential counts as one.
    while inner and inner[-1].value in ("cdot", "times", "*"):
        inner.pop()
    inner += [Token("num", "1", False)] if inner[-1].value == "{" else []
    inner += reader.tokens[reader.at :]
    reader.at = len(reader.tokens)
    return variable, inner


def _is_differential(reader: Reader, at: int) -> bool:
    token = reader.tokens[at]
    return token.kind == "word" and (token.value == "d" or token.value[-2:-1] == "d")


def read_bound(reader: Reader, name: str) -> Node:
    r"""`\sum_{k=0}^{n} body`: name, body, variable, from, to."""
    upper: Node | None = None
    if reader.is_op("^"):
        reader.at += 1
        upper = _limit_value(reader)
    reader.expect("_")
    reader.expect("{")
    start = reader.relation()
    reader.expect("}")
    if start.op != "chain" or start.name != "=" or start.args[0].op != "sym":
        raise NotReadError(f"\\{name} over a condition")
    if upper is None:
        reader.expect("^")
        upper = _limit_value(reader)
    reader.deeper()
    body = reader.term()
    reader.depth -= 1
    return Node("bound", (body, start.args[0], start.args[1], upper), name)


def _limit_value(reader: Reader) -> Node:
    """A bound: a group or one sign; a number's subscript is the other bound, not a base."""
    token = reader.peek()
    if token.kind == "num":
        reader.at += 1
        return number_of(token.value)
    if token.kind == "word" and len(token.value) == 1:
        reader.at += 1
        return Node("sym", name=token.value)
    return read_exponent(reader)
