"""The value of a tree at a point: exact where it is rational, else to a chosen precision.

Two expressions are taken as equal when their values agree at several random points to 40 digits and
more (Schwartz-Zippel for polynomials, the same idea for the rest). Unknown functions get random
values that depend on name and arguments alone. Every operation is capped beforehand, so that the
time is bounded by the size of the tree; the caller's deadline is a second line of defence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf  # type: ignore[import-untyped]

from still_core.verify.nodes import CapError, Node
from still_core.verify.value_functions import FUNCTIONS
from still_core.verify.values import (
    MAX_BITS,
    MAX_POWER,
    Grid,
    NoValueError,
    Value,
    add,
    inexact,
    is_whole,
    multiply,
    power,
)

MAX_SUM_TERMS = 1_000
MAX_OPERATIONS = 12_000
"""Most node evaluations of one tree at one point (sums repeat their body)."""
BITS_PER_OPERATION = 500
"""At a higher precision an evaluation counts as several."""


class Point:
    """Values of the symbols, one choice of signs for all plus-minus, and the trial's randomness."""

    def __init__(self, symbols: Mapping[str, Value], sign: int = 1, trial: int = 0) -> None:
        self.symbols = dict(symbols)
        self.sign = sign
        self.trial = trial
        self.operations = 0
        self.bits = 0
        """Largest magnitude met, in bits: the precision that an exact comparison needs."""


def random_value(*parts: object, signed: bool = False) -> Fraction:
    """A rational in (0.3, 2.3), or its negative half the time where `signed`."""
    seed = hashlib.sha256(repr(parts).encode()).digest()
    value = Fraction(int.from_bytes(seed[:8], "big"), 2**63) + Fraction(3, 10)
    return -value if signed and seed[8] & 1 else value


def evaluate(node: Node, point: Point) -> Value:
    """The value of `node`.

    Raises:
        NoValueError: it has none here.
        CapError: a number or the work grows beyond a cap.
    """
    point.operations += 1 + mp.prec // BITS_PER_OPERATION
    if point.operations > MAX_OPERATIONS:
        raise CapError("work_cap")
    handler = _HANDLERS.get(node.op)
    if handler is None:
        raise NoValueError(node.op)
    return _checked(handler(node, point), point)


def _checked(value: Value, point: Point) -> Value:
    if isinstance(value, Fraction):
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > MAX_BITS:
            raise CapError("magnitude_cap")
        point.bits = max(point.bits, bits)
    elif isinstance(value, mpf | mpc):
        for part in (value.real, value.imag):
            if not mp.isfinite(part):
                raise NoValueError("not finite")
            if part:
                exponent = abs(part.man_exp[1] + part.man_exp[0].bit_length())
                if exponent > MAX_POWER:
                    raise CapError("magnitude_cap")
                point.bits = max(point.bits, min(exponent, MAX_BITS))
    return value


def _num(node: Node, point: Point) -> Value:
    assert node.number is not None
    return node.number


def _sym(node: Node, point: Point) -> Value:
    name = node.name
    if name in point.symbols:
        return point.symbols[name]
    if name == "pi":
        return +mp.pi
    if name == "e":
        return +mp.e
    if name == "i":
        return mpc(0, 1)
    if name in ("oo", "EmptySet", "Reals", "Naturals", "Integers", "Rationals", "Complexes"):
        raise NoValueError(name)
    return point.symbols.setdefault(name, random_value("symbol", name, point.trial))


def _add(node: Node, point: Point) -> Value:
    total = evaluate(node.args[0], point)
    for arg in node.args[1:]:
        total = add(total, evaluate(arg, point))
    return total


def _mul(node: Node, point: Point) -> Value:
    product = evaluate(node.args[0], point)
    for arg in node.args[1:]:
        product = _checked(multiply(product, evaluate(arg, point)), point)
    return product


def _div(node: Node, point: Point) -> Value:
    top, bottom = (evaluate(arg, point) for arg in node.args)
    if isinstance(bottom, Grid) or not bottom:
        raise NoValueError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    if isinstance(top, Grid):
        exact = isinstance(bottom, Fraction)
        return multiply(top, 1 / bottom if exact else 1 / inexact(bottom))
    return inexact(top) / inexact(bottom)


def _neg(node: Node, point: Point) -> Value:
    return multiply(Fraction(-1), evaluate(node.args[0], point))


def _pm(node: Node, point: Point) -> Value:
    return multiply(Fraction(point.sign), evaluate(node.args[0], point))


def _mp(node: Node, point: Point) -> Value:
    return multiply(Fraction(-point.sign), evaluate(node.args[0], point))


def _pow(node: Node, point: Point) -> Value:
    if node.args[1] == Node("sym", name="T") or node.args[1].name == "\\top":
        base = evaluate(node.args[0], point)
        if isinstance(base, Grid):
            return Grid([list(column) for column in zip(*base.rows, strict=True)])
    return power(evaluate(node.args[0], point), evaluate(node.args[1], point))


def _matrix(node: Node, point: Point) -> Value:
    return Grid([[evaluate(cell, point) for cell in row.args] for row in node.args])


def _unit(node: Node, point: Point) -> Value:
    value = evaluate(node.args[0], point)
    return multiply(value, Fraction(1, 100)) if node.name == "percent" else value


def _bound(node: Node, point: Point) -> Value:
    if node.name not in ("sum", "prod"):
        return _unknown(node, point)
    body, variable, lower, upper = node.args
    start, stop = evaluate(lower, point), evaluate(upper, point)
    if not (is_whole(start) and is_whole(stop)):
        # Symbolic bounds: an unknown function of the body at two points and of the bounds.
        return _unknown(node, point)
    if stop - start > MAX_SUM_TERMS:
        raise CapError("sum_cap")
    shadowed = point.symbols.get(variable.name)
    total: Value = Fraction(0 if node.name == "sum" else 1)
    for index in range(int(start), int(stop) + 1):
        point.symbols[variable.name] = Fraction(index)
        value = evaluate(body, point)
        total = _checked(add(total, value) if node.name == "sum" else multiply(total, value), point)
    _restore(point, variable.name, shadowed)
    return total


def _restore(point: Point, name: str, shadowed: Value | None) -> None:
    if shadowed is None:
        point.symbols.pop(name, None)
    else:
        point.symbols[name] = shadowed


def _unknown(node: Node, point: Point) -> Value:
    body, variable, *bounds = node.args
    shadowed = point.symbols.get(variable.name)
    parts: list[object] = [node.name, point.trial]
    for value in (Fraction(7, 5), Fraction(11, 4)):
        point.symbols[variable.name] = value
        parts.append(_rounded(evaluate(body, point)))
    _restore(point, variable.name, shadowed)
    if node.name == "diff":
        parts.append(_rounded(evaluate(variable, point)))
    for bound in bounds:
        far = bound.name or bound.op if _is_infinity(bound) else ""
        parts.append(far or _rounded(evaluate(bound, point)))
    return random_value(*parts)


def _is_infinity(node: Node) -> bool:
    return node == Node("sym", name="oo") or (node.op == "neg" and _is_infinity(node.args[0]))


def _rounded(value: Value) -> str:
    """A text that equal values share, whatever the order of the operations that made them."""
    if isinstance(value, Grid):
        return ";".join(_rounded(cell) for row in value.rows for cell in row)
    number = inexact(value)
    return ",".join(_short(part) for part in (mp.re(number), mp.im(number)))


def _short(part: Any) -> str:
    """Thirty digits of a real number, in a form that costs nothing for a huge one."""
    if abs(part) < mpf(10) ** -40:
        return "0"
    with mp.workprec(100):
        mantissa, exponent = (+part).man_exp
    return f"{'-' if part < 0 else ''}{mantissa}:{exponent}"


def _call(node: Node, point: Point) -> Value:
    args = [evaluate(arg, point) for arg in node.args]
    if node.name.startswith("fn:"):
        return random_value(node.name, point.trial, *map(_rounded, args))
    function = FUNCTIONS.get(node.name)
    if function is None:
        return random_value("fn:" + node.name, point.trial, *map(_rounded, args))
    try:
        return function(*args)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise NoValueError(f"{node.name}: {error}") from None


_HANDLERS: dict[str, Callable[[Node, Point], Value]] = {
    "num": _num,
    "sym": _sym,
    "add": _add,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pm": _pm,
    "mp": _mp,
    "pow": _pow,
    "matrix": _matrix,
    "unit": _unit,
    "bound": _bound,
    "call": _call,
}
