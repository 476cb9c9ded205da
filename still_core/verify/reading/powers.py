"""Powers, degrees and the signs that follow a value: `!`, `%`, primes, conjugation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import FUNCTION_LETTERS, Node, NotReadError, number
from still_core.verify.reading.brackets import read_bracketed
from still_core.verify.reading.symbols import read_symbol

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


def read_power(reader: Reader) -> Node:
    """atom [^ exponent] postfix*"""
    reader.deeper()
    node = _postfix(reader, reader.atom())
    if reader.is_op("^", "**"):
        reader.at += 1
        if reader.is_cmd("circ", "degree") or _at_circle(reader):
            _skip_circle(reader)
            node = _degrees(reader, node)
        elif reader.is_op("'") or reader.is_cmd("prime"):
            reader.at += 1
            node = Node("call", (node,), "prime")
        elif stars := _conjugations(reader):
            for _ in range(stars):
                node = Node("call", (node,), "dagger")
        else:
            node = _inverse(reader, node) or Node("pow", (node, read_exponent(reader)))
        node = _postfix(reader, node)
        if reader.is_op("^", "**"):
            return _degrees_of_power(reader, node)
    reader.depth -= 1
    return node


def _inverse(reader: Reader, node: Node) -> Node | None:
    r"""`f^{-1}(x)`: the inverse function's value, not a power."""
    start = reader.at
    if node.op != "sym" or node.name not in FUNCTION_LETTERS:
        return None
    if read_exponent(reader) == number(-1) and reader.is_op("("):
        return read_symbol(reader, f"{node.name}^-1")
    reader.at = start
    return None


def _conjugations(reader: Reader) -> int:
    r"""How many stars or daggers stand as exponent (`A^{\ast\ast}`, `A^H`); 0 where none
    does."""
    start = reader.at
    braced = reader.is_op("{")
    reader.at += braced
    stars = 0
    while reader.is_cmd("ast", "star", "dagger") or reader.is_op("*", "**"):
        stars += len(reader.take().value) if reader.is_op("*", "**") else bool(reader.take())
    if not stars and reader.peek().value in ("H", "dagger"):
        reader.at, stars = reader.at + 1, 1
    if stars and (not braced or reader.is_op("}")):
        reader.at += braced
        return stars
    reader.at = start
    return 0


def _degrees_of_power(reader: Reader, node: Node) -> Node:
    """`30^{2}^\\circ` and the like: only a degree sign may follow a power."""
    reader.at += 1
    if not (reader.is_cmd("circ", "degree") or _at_circle(reader)):
        raise NotReadError("a double power")
    _skip_circle(reader)
    reader.depth -= 1
    return _degrees(reader, node)


def _degrees(reader: Reader, node: Node) -> Node:
    """Degrees are an angle inside a function, and a unit elsewhere."""
    if reader.calls:
        return Node("mul", (node, Node("div", (Node("sym", name="pi"), number(180)))))
    if reader.peek().kind == "word" and reader.peek().value in ("C", "F"):
        reader.at += 1
    return Node("unit", (node,), "degree")


def _at_circle(reader: Reader) -> bool:
    return reader.is_op("{") and reader.peek(1).value in ("circ", "degree")


def _skip_circle(reader: Reader) -> None:
    if reader.is_op("{"):
        reader.at += 2
        reader.expect("}")
    else:
        reader.at += 1


def read_exponent(reader: Reader) -> Node:
    """What stands after `^`: a group, or a signed atom with its own powers."""
    if reader.is_op("{"):
        reader.at += 1
        return read_bracketed(reader, "{")
    if reader.is_op("-", "+"):
        negative = reader.take().value == "-"
        inner = read_exponent(reader)
        return Node("neg", (inner,)) if negative else inner
    node = reader.atom()
    if reader.is_op("^", "**") and not _at_circle_after_power(reader):
        reader.at += 1
        node = Node("pow", (node, read_exponent(reader)))
    return node


def _at_circle_after_power(reader: Reader) -> bool:
    following = reader.peek(1)
    return following.value in ("circ", "degree") or (
        following.value == "{" and reader.peek(2).value in ("circ", "degree")
    )


def _postfix(reader: Reader, node: Node) -> Node:
    while True:
        if reader.is_op("!"):
            reader.at += 1
            node = Node("call", (node,), "factorial")
        elif reader.is_op("'") and node.op == "sym":
            reader.at += 1
            node = Node("sym", name=node.name + "'")
        elif reader.is_op("\\%", "%") and _continues(reader, 1):
            reader.at += 1
            node = Node("div", (node, number(100)))
        else:
            return node


def _continues(reader: Reader, ahead: int) -> bool:
    """Whether arithmetic goes on after `ahead` tokens: there a percent sign is a factor."""
    token = reader.peek(ahead)
    return token.kind == "num" or (
        token.value in ("+", "-", "*", "/", "cdot", "times", "of") and token.kind != "end"
    )
