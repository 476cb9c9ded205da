"""What only SymPy does here: greatest common divisors and least common multiples of expressions.

The tree is turned into SymPy objects node by node (never through `sympify`, `parse_expr` or
`eval`), and the result is turned back. Runs in a worker, under its memory cap and the caller's
deadline; SymPy is imported when the first such answer comes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from still_core.verify.nodes import CapError, Node, NotReadError, names, number

MAX_NODES = 60
"""Largest tree that is given to SymPy."""
MAX_EXPONENT = 5_000
MAX_DEGREE = 30
"""Largest power of an expression with symbols: their divisors are found by expansion."""
MAX_FACTORIAL = 500
_NAMESAKES = frozenset(
    names("sin cos tan cot sec csc asin acos atan sinh cosh tanh ln log exp floor")
)
_DIVISORS = frozenset({"gcd", "lcm"})


def with_divisors(node: Node) -> Node:
    """`node` with each gcd and lcm of expressions replaced by what it is.

    Raises:
        NotReadError: an argument that has no SymPy counterpart here.
    """
    if not any(part.op == "call" and part.name in _DIVISORS for part in node.walk()):
        return node
    if sum(1 for _ in node.walk()) > MAX_NODES:
        raise NotReadError("too large for SymPy")
    return _rewritten(node)


def _rewritten(node: Node) -> Node:
    node = replace(node, args=tuple(_rewritten(arg) for arg in node.args))
    if node.op != "call" or node.name not in _DIVISORS or _plain(node):
        return node
    _check_degrees(node)
    sympy = load_sympy()
    arguments = [to_sympy(arg) for arg in node.args]
    function = sympy.gcd if node.name == "gcd" else sympy.lcm
    try:
        return from_sympy(function(arguments) if len(arguments) != 2 else function(*arguments))
    except sympy.PolynomialError as error:
        raise NotReadError(f"{node.name}: {error}") from None


def _plain(node: Node) -> bool:
    """Whether the arguments are rational numbers, for which no SymPy is needed."""
    plain = frozenset({"num", "neg", "add", "mul", "div", "call", "pow"})
    calls = _DIVISORS | {"factorial", "binomial", "abs", "floor", "ceil"}
    return all(
        part.op in plain and (part.op != "call" or part.name in calls)
        for arg in node.args
        for part in arg.walk()
    )


def _check_degrees(node: Node) -> None:
    """Refuse high powers before SymPy sees them, or is even loaded."""
    for part in node.walk():
        exponent = part.args[1].number if part.op == "pow" else None
        if part.op == "pow" and (exponent is None or abs(exponent) > MAX_DEGREE):
            raise CapError("exponent_cap")


announce: Callable[[str], None] | None = None
"""Told `loading` and `loaded` around the import of SymPy; the worker process sets it, so that its
owner does not count the import against an answer's deadline."""


def load_sympy() -> Any:
    """SymPy, imported when first needed (0.3 to 1.5 s)."""
    if "sympy" in sys.modules:
        return sys.modules["sympy"]
    if announce is not None:
        announce("loading")
    import sympy

    if announce is not None:
        announce("loaded")
    return sympy


def to_sympy(node: Node) -> Any:
    """A scalar tree as a SymPy expression."""
    sympy = load_sympy()

    args = [to_sympy(arg) for arg in node.args]
    if node.op == "num" and node.number is not None:
        return sympy.Rational(node.number.numerator, node.number.denominator)
    if node.op == "sym":
        return {"pi": sympy.pi, "e": sympy.E}.get(node.name) or sympy.Symbol(node.name)
    if node.op == "add":
        return sympy.Add(*args)
    if node.op == "mul":
        return sympy.Mul(*args)
    if node.op == "div":
        return args[0] / args[1]
    if node.op == "neg":
        return -args[0]
    if (
        node.op == "pow"
        and args[1].is_Rational
        and abs(args[1]) <= (MAX_EXPONENT if args[0].is_number else MAX_DEGREE)
    ):
        return args[0] ** args[1]
    if node.op == "call" and node.name == "factorial" and args[0].is_Integer:
        if not 0 <= args[0] <= MAX_FACTORIAL:
            raise CapError("factorial_cap")
        return sympy.factorial(args[0])
    if node.op == "call" and node.name in _NAMESAKES and len(args) == 1:
        return getattr(sympy, node.name)(args[0])
    if node.op == "unit":
        return args[0]
    if node.op == "call" and node.name == "root" and args[1].is_Integer and 1 < args[1] <= 100:
        return sympy.root(args[0], args[1])
    raise NotReadError(f"no SymPy counterpart of {node.op} {node.name}")


def from_sympy(value: Any) -> Node:
    """A SymPy sum, product, power, symbol or rational number as a tree."""
    sympy = load_sympy()

    if value.is_Rational:
        return number(Fraction(int(value.p), int(value.q)))
    if value is sympy.pi:
        return Node("sym", name="pi")
    if value.is_Symbol:
        return Node("sym", name=value.name)
    for kind, op in ((sympy.Add, "add"), (sympy.Mul, "mul"), (sympy.Pow, "pow")):
        if isinstance(value, kind):
            return Node(op, tuple(from_sympy(arg) for arg in value.args))
    raise NotReadError(f"no tree for {type(value).__name__}")
