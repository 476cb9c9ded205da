"""Known functions and their arguments: sines, logarithms, roots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import (
    FUNCTIONS,
    PREFIX_FUNCTIONS,
    Node,
    NotReadError,
    multiplied,
    number,
)
from still_core.verify.reading.brackets import read_bracketed
from still_core.verify.reading.powers import read_exponent, read_power
from still_core.verify.reading.symbols import NAME

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


def read_function(reader: Reader, name: str) -> Node:
    r"""A known function with its argument: `\sin x`, `\sin^2 x`, `\log_2 x`, `sqrt(2)`."""
    reader.deeper()
    reader.calls += 1
    base = power = None
    for _ in range(2):
        if reader.is_op("_"):
            reader.at += 1
            base = reader.single()
        elif reader.is_op("^", "**") and power is None:
            reader.at += 1
            power = read_exponent(reader)
    root = _root_index(reader) if name == "sqrt" else None
    if name in ("sqrt", "cbrt") and not reader.is_op("(", "{"):
        args: tuple[Node, ...] = (_radicand(reader),)
    else:
        args = _arguments(reader, name)
    reader.calls -= 1
    reader.depth -= 1
    return _apply(name, args, base, power, root)


def _root_index(reader: Reader) -> Node | None:
    if not reader.is_op("["):
        return None
    reader.at += 1
    inner = reader.expression()
    reader.expect("]")
    return inner


def _radicand(reader: Reader) -> Node:
    r"""What `\sqrt` without braces takes: a whole number or one letter."""
    token = reader.peek()
    if token.kind == "word" and len(token.value) > 1 and NAME.match(token.value) is None:
        return reader.single()
    return reader.atom()


def _arguments(reader: Reader, name: str) -> tuple[Node, ...]:
    if reader.is_op("(", "{", "[", "\\{"):
        opening = reader.take().value
        inner = read_bracketed(reader, opening)
        if inner.op == "set":
            return inner.args
        if inner.op == "group" and inner.name in ("()", "{}", "[]"):
            return inner.args
        # `\sin(x)^2` is the square of the sine; `\log(x) y` is a product.
        return (inner,)
    if name not in PREFIX_FUNCTIONS and name not in ("abs", "re", "im"):
        raise NotReadError(f"{name} without an argument")
    node = read_power(reader)
    while reader.starts_factor() and not _at_function(reader):
        node = multiplied(node, read_power(reader))
    return (node,)


def _at_function(reader: Reader) -> bool:
    token = reader.peek()
    return (
        token.value in FUNCTIONS
        or (
            token.kind == "word"
            and (match := NAME.match(token.value)) is not None
            and match[0] in FUNCTIONS
        )
        or (token.kind == "op" and token.value in ("(", "["))
    )


def conjugated(node: Node) -> Node:
    r"""The conjugate, taken inside sums and products: `\overline{x + y}` is `\bar x + \bar y`."""
    if node.op == "num":
        return node
    if node.op == "sym":
        return Node("neg", (node,)) if node.name == "i" else Node("sym", name=f"bar({node.name})")
    if node.op in ("add", "mul", "neg", "div"):
        return Node(node.op, tuple(conjugated(arg) for arg in node.args))
    return Node("call", (node,), "conj")


def _apply(
    name: str,
    args: tuple[Node, ...],
    base: Node | None,
    power: Node | None,
    root: Node | None,
) -> Node:
    if name in ("lg",):
        name, base = "log", number(10)
    if name in ("log", "ln") and base is not None:
        args = (*args, base)
    if name == "exp":
        node = Node("pow", (Node("sym", name="e"), *args))
    elif name in ("sqrt", "cbrt"):
        degree = number(3) if name == "cbrt" else root or number(2)
        node = Node("call", (*args, degree), "root")
    elif name == "conj" and len(args) == 1:
        node = conjugated(args[0])
    elif name == "root":
        node = Node("call", args, "root")
    else:
        node = Node("call", args, name)
    if power is None:
        return node
    if power == number(-1) and name in FUNCTIONS.values() and "a" + name in FUNCTIONS.values():
        return Node("call", args, "a" + name)
    return Node("pow", (node, power))
