"""Names: runs of letters, Greek, subscripts, primes, accents, calls of a function letter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from still_core.verify.nodes import (
    CONSTANTS,
    CONSTRUCTORS,
    FUNCTION_LETTERS,
    FUNCTIONS,
    GREEK,
    Node,
    NotReadError,
    names,
)
from still_core.verify.reading.brackets import read_bracketed
from still_core.verify.reading.sympy_spelling import read_external
from still_core.verify.reading.tokens import Token

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader

ACCENTS = frozenset(names("overline bar vec hat tilde overrightarrow widehat dot"))
_NAMES = sorted({*FUNCTIONS, *GREEK, *CONSTANTS} - {"re", "im", "tr", "in"}, key=len, reverse=True)

NAME = re.compile("|".join(name for name in _NAMES if len(name) > 1 and name not in ("mod", "oo")))


_KNOWN = {"Gamma": "gamma", "zeta": "zeta"}
"""Function letters whose function has a value."""


def read_letters(reader: Reader, token: Token) -> Node:
    """A run of letters: a known name, or one letter after the other."""
    text = token.value
    if text in CONSTRUCTORS and reader.is_op("(", "."):
        return read_external(reader, text)
    if text == "gamma" and reader.is_op("("):
        return read_symbol(reader, "Gamma")
    if text in ("frac", "sqrt") and reader.is_op("{"):
        return reader.command(text)
    if text in ACCENTS and reader.is_op("{"):
        return reader.command(text)
    if reader.program and text == "E":
        return read_symbol(reader, "e")
    name = NAME.match(text)
    if (text in FUNCTIONS and reader.is_op("(")) or text in CONSTANTS:
        head = text
    elif name is not None:
        head = name[0]
    else:
        head = text[0]
    if len(head) < len(text):
        reader.at -= 1
        reader.tokens[reader.at] = Token("word", text[len(head) :], False)
    if head in FUNCTIONS:
        return reader.function(FUNCTIONS[head])
    if head == "I" and not reader.is_op("_"):
        return Node("sym", name="i")
    return read_symbol(reader, CONSTANTS.get(head, head))


def read_symbol(reader: Reader, name: str) -> Node:
    """A symbol with its subscript and primes, or a call of a function letter."""
    if reader.is_op("_"):
        reader.at += 1
        if (index := _index(reader)) is not None:
            return Node("call", (index,), f"fn:{name}_")
        name = f"{name}_{reader.group_text()}"
    primes = 0
    while reader.is_op("'"):
        reader.at += 1
        primes += 1
    if reader.is_op("_"):
        reader.at += 1
        name = f"{name}_{reader.group_text()}"
    name += "'" * primes
    braced = reader.is_op("{") and reader.peek(1).value == "("  # SymPy's f{\left(x\right)}
    called = reader.is_op("(") or braced
    if called and re.split(r"[_^']", name)[0] in FUNCTION_LETTERS:
        reader.at += 1 + braced
        inner = read_bracketed(reader, "(")
        if braced:
            reader.expect("}")
        args = inner.args if inner.op == "group" else (inner,)
        known = _KNOWN.get(name) if len(args) == 1 else None
        return Node("call", args, known or "fn:" + name)
    return Node("sym", name=name)


def _index(reader: Reader) -> Node | None:
    """A subscript that is an expression (`a_{n+1}`), None where it is a mere name."""
    ahead = 1
    if reader.peek().value != "{":
        return None
    while reader.peek(ahead).value not in ("}", ""):
        ahead += 1
    values = {reader.peek(index).value for index in range(1, ahead)}
    if not values & {"+", "-", "^", "**", "*", "/"} or "{" in values:
        return None
    start = reader.at
    reader.at += 1
    try:
        node = reader.expression()
        reader.expect("}")
    except NotReadError:  # then it is a name with signs in it
        reader.at = start
        return None
    return node


def read_accented(reader: Reader, accent: str) -> Node:
    """A name with an accent; a bar over an expression is its conjugate."""
    if accent == "bar" and reader.is_op("{") and reader.peek(2).value != "}":
        reader.at += 1
        return reader.conjugate(read_bracketed(reader, "{"))
    return read_symbol(reader, f"{accent}({reader.group_text()})")
