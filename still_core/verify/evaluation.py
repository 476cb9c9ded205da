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
from math import comb, factorial, gcd, lcm
from typing import Any

from mpmath import mp, mpc, mpf  # type: ignore[import-untyped]

from still_core.verify.nodes import CapError, Node, names

BASE_BITS = 220
"""Precision of a first evaluation, in bits (66 digits)."""
MAX_BITS = 20_000
"""Largest exact number, and largest precision, in bits; more is over the cap."""
MAX_POWER = 1_000_000
"""Largest binary exponent of an inexact number."""
MAX_FACTORIAL = 2_000
MAX_SUM_TERMS = 1_000
MAX_OPERATIONS = 12_000
"""Most node evaluations of one tree at one point (sums repeat their body)."""

Value = Any
"""Fraction (exact), mpf, mpc, or Grid."""


class NoValueError(ArithmeticError):
    """The tree has no value here: a division by zero, a pole, a set in place of a number."""


class Grid:
    """A matrix of values."""

    def __init__(self, rows: list[list[Value]]) -> None:
        self.rows = rows
        self.shape = (len(rows), len(rows[0]))


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
    point.operations += 1
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


def inexact(value: Value) -> Any:
    """A scalar as mpf or mpc."""
    if isinstance(value, Fraction):
        return mpf(value.numerator) / value.denominator
    if isinstance(value, Grid):
        raise NoValueError("a matrix in place of a number")
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


def add(left: Value, right: Value) -> Value:
    """Sum of two values."""
    if isinstance(left, Grid) or isinstance(right, Grid):
        if not (isinstance(left, Grid) and isinstance(right, Grid)) or left.shape != right.shape:
            raise NoValueError("shapes differ")
        pairs = zip(left.rows, right.rows, strict=True)
        return Grid([[add(x, y) for x, y in zip(a, b, strict=True)] for a, b in pairs])
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return inexact(left) + inexact(right)


def _mul(node: Node, point: Point) -> Value:
    product = evaluate(node.args[0], point)
    for arg in node.args[1:]:
        product = _checked(multiply(product, evaluate(arg, point)), point)
    return product


def multiply(left: Value, right: Value) -> Value:
    """Product of two values, matrices included."""
    if isinstance(left, Grid) and isinstance(right, Grid):
        if left.shape[1] != right.shape[0]:
            raise NoValueError("shapes do not fit")
        columns = list(zip(*right.rows, strict=True))
        return Grid([[_dot(row, column) for column in columns] for row in left.rows])
    if isinstance(left, Grid):
        return Grid([[multiply(x, right) for x in row] for row in left.rows])
    if isinstance(right, Grid):
        return multiply(right, left)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return inexact(left) * inexact(right)


def _dot(row: list[Value], column: tuple[Value, ...]) -> Value:
    total: Value = Fraction(0)
    for x, y in zip(row, column, strict=True):
        total = add(total, multiply(x, y))
    return total


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
    return power(evaluate(node.args[0], point), evaluate(node.args[1], point), point)


def power(base: Value, exponent: Value, point: Point) -> Value:
    """`base` to the `exponent`, capped before anything is computed."""
    if isinstance(base, Grid):
        return _matrix_power(base, exponent, point)
    if isinstance(exponent, Grid):
        raise NoValueError("a matrix as exponent")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        whole = int(exponent)
        if not base and whole <= 0:
            if whole == 0:
                raise NoValueError("0^0")
            raise NoValueError("division by zero")
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(whole) <= MAX_BITS or abs(base) == 1:
                return base**whole
    if (odd := _odd_power(base, exponent)) is not None:
        return odd
    base, exponent = inexact(base), inexact(exponent)
    if not base:
        if mp.re(exponent) > 0:
            return mpf(0)
        raise NoValueError("division by zero")
    size = abs(mp.log(abs(base), 2)) + 10
    if abs(exponent) * size > MAX_POWER:
        raise CapError("exponent_cap")
    return mp.power(base, exponent)


def _odd_power(base: Value, exponent: Value) -> Value | None:
    """A negative number to p/q with q odd is taken as real, like its root."""
    if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
        return None
    if exponent.denominator == 1 or isinstance(base, mpc) or not base < 0:
        return None
    size = power(-base, exponent, Point({}))
    return -size if exponent.numerator % 2 else size


def _matrix_power(base: Grid, exponent: Value, point: Point) -> Value:
    if not isinstance(exponent, Fraction) or exponent.denominator != 1 or abs(exponent) > 64:
        raise NoValueError("a power of a matrix")
    whole = int(exponent)
    factor = base if whole >= 0 else _inverse(base)
    size = base.shape[0]
    result = Grid([[Fraction(int(i == j)) for j in range(size)] for i in range(size)])
    for _ in range(abs(whole)):
        result = multiply(result, factor)
    return result


def _minor(grid: Grid, row: int, column: int) -> Grid:
    rows = [r[:column] + r[column + 1 :] for i, r in enumerate(grid.rows) if i != row]
    return Grid(rows)


def determinant(grid: Grid) -> Value:
    """By cofactors; at most 6 x 6."""
    size, width = grid.shape
    if size != width:
        raise NoValueError("not square")
    if size > 6:
        raise CapError("matrix_cap")
    if size == 1:
        return grid.rows[0][0]
    total: Value = Fraction(0)
    for column in range(size):
        cofactor = multiply(grid.rows[0][column], determinant(_minor(grid, 0, column)))
        total = add(total, multiply(Fraction((-1) ** column), cofactor))
    return total


def _adjugate(grid: Grid) -> Grid:
    size = grid.shape[0]
    if grid.shape != (size, size) or not 2 <= size <= 6:
        raise NoValueError("no adjugate")
    return Grid(
        [
            [
                multiply(Fraction((-1) ** (i + j)), determinant(_minor(grid, j, i)))
                for j in range(size)
            ]
            for i in range(size)
        ]
    )


def _inverse(grid: Grid) -> Grid:
    value = determinant(grid)
    if not value:
        raise NoValueError("singular")
    reciprocal = 1 / value if isinstance(value, Fraction) else 1 / inexact(value)
    if grid.shape == (1, 1):
        return Grid([[reciprocal]])
    inverse: Grid = multiply(_adjugate(grid), reciprocal)
    return inverse


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
    if not (_is_whole(start) and _is_whole(stop)):
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
    parts = (mp.re(number), mp.im(number))
    return ",".join("0" if abs(part) < mpf(10) ** -40 else str(mp.nstr(part, 30)) for part in parts)


def _is_whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _call(node: Node, point: Point) -> Value:
    args = [evaluate(arg, point) for arg in node.args]
    if node.name.startswith("fn:"):
        return random_value(node.name, point.trial, *map(_rounded, args))
    function = _FUNCTIONS.get(node.name)
    if function is None:
        return random_value("fn:" + node.name, point.trial, *map(_rounded, args))
    try:
        return function(*args)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise NoValueError(f"{node.name}: {error}") from None


def _root(value: Value, degree: Value) -> Value:
    if isinstance(value, Fraction) and _is_whole(degree) and 1 <= degree <= 64:
        exact = _exact_root(value, int(degree))
        if exact is not None:
            return exact
    radicand, index = inexact(value), inexact(degree)
    if not index:
        raise NoValueError("a root of degree zero")
    if not radicand:
        return mpf(0)
    if _is_whole(degree) and degree % 2 and mp.im(radicand) == 0 and mp.re(radicand) < 0:
        return -mp.power(-radicand, 1 / index)
    if abs(1 / index) * (abs(mp.log(abs(radicand), 2)) + 10) > MAX_POWER:
        raise CapError("exponent_cap")
    return mp.power(radicand, 1 / index)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if value < 0:
        if degree % 2 == 0:
            return None
        opposite = _exact_root(-value, degree)
        return None if opposite is None else -opposite
    parts = []
    for part in (value.numerator, value.denominator):
        root = _integer_root(part, degree)
        if root**degree != part:
            return None
        parts.append(root)
    return Fraction(parts[0], parts[1])


def _integer_root(value: int, degree: int) -> int:
    if value < 2:
        return value
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


def _log(value: Value, base: Value | None = None) -> Value:
    if isinstance(value, Fraction) and isinstance(base, Fraction) and value > 0 and base > 0:
        exact = _exact_log(value, base)
        if exact is not None:
            return exact
    number = inexact(value)
    if not number or (base is not None and not inexact(base)):
        raise NoValueError("log 0")
    result = mp.log(number)
    if base is None:
        return result
    scale = mp.log(inexact(base))
    if not scale:
        raise NoValueError("log to base 1")
    return result / scale


def _exact_log(value: Fraction, base: Fraction) -> Fraction | None:
    if base == 1:
        return None
    estimate = mp.log(inexact(value)) / mp.log(inexact(base))
    nearest = int(mp.nint(estimate))
    if abs(nearest) <= 2_000 and base**nearest == value:
        return Fraction(nearest)
    return None


def _factorial(value: Value) -> Value:
    if _is_whole(value):
        if not value >= 0:
            raise NoValueError("factorial of a negative number")
        if value > MAX_FACTORIAL:
            raise CapError("factorial_cap")
        return Fraction(factorial(int(value)))
    number = inexact(value)
    if abs(number) > MAX_FACTORIAL:
        raise CapError("factorial_cap")
    return mp.gamma(number + 1)


def _binomial(top: Value, bottom: Value) -> Value:
    if _is_whole(top) and _is_whole(bottom) and top >= 0 and bottom >= 0:
        if top > MAX_FACTORIAL and min(bottom, top - bottom) > 64:
            raise CapError("factorial_cap")
        return Fraction(comb(int(top), int(bottom)))
    if _is_whole(bottom) and 0 <= bottom <= 64 and isinstance(top, Fraction):
        product = Fraction(1)
        for index in range(int(bottom)):
            product *= (top - index) / (index + 1)
        return product
    upper, lower = inexact(top), inexact(bottom)
    if max(abs(upper), abs(lower)) > MAX_FACTORIAL:
        raise CapError("factorial_cap")
    return mp.binomial(upper, lower)


def _rational(values: tuple[Value, ...]) -> list[Fraction]:
    if not all(isinstance(value, Fraction) for value in values):
        raise NoValueError("not rational")
    return list(values)


def _gcd(*values: Value) -> Value:
    fractions = _rational(values)
    bottom = lcm(*(value.denominator for value in fractions))
    return Fraction(gcd(*(int(value * bottom) for value in fractions)), bottom)


def _lcm(*values: Value) -> Value:
    fractions = _rational(values)
    bottom = lcm(*(value.denominator for value in fractions))
    return Fraction(lcm(*(int(value * bottom) for value in fractions)), bottom)


def _mod(value: Value, modulus: Value) -> Value:
    if not modulus:
        raise NoValueError("mod 0")
    if isinstance(value, Fraction) and isinstance(modulus, Fraction):
        return value % modulus
    left, right = inexact(value), inexact(modulus)
    return left - right * mp.floor(left / right)


def _floor(value: Value) -> Value:
    if isinstance(value, Fraction):
        return Fraction(value.numerator // value.denominator)
    return mp.floor(_real(value))


def _ceil(value: Value) -> Value:
    return -_floor(-value)


def _real(value: Value) -> Any:
    number = inexact(value)
    if mp.im(number):
        raise NoValueError("not real")
    return mp.re(number)


def _abs(value: Value) -> Value:
    if isinstance(value, Grid):
        return determinant(value)
    return abs(value)


def _extreme(choose: Callable[..., Any]) -> Callable[..., Value]:
    def function(*values: Value) -> Value:
        return choose(values, key=_real)

    return function


def _conjugate(value: Value) -> Value:
    if isinstance(value, Grid):
        return Grid([[_conjugate(cell) for cell in row] for row in value.rows])
    return value if isinstance(value, Fraction) else mp.conj(value)


def _dagger(value: Value) -> Value:
    if not isinstance(value, Grid):
        raise NoValueError("a star on a number")
    return Grid([[_conjugate(cell) for cell in column] for column in zip(*value.rows, strict=True)])


def _det(value: Value) -> Value:
    if not isinstance(value, Grid):
        raise NoValueError("det of a number")
    return determinant(value)


def _trace(value: Value) -> Value:
    if not isinstance(value, Grid) or value.shape[0] != value.shape[1]:
        raise NoValueError("trace")
    total: Value = Fraction(0)
    for index in range(value.shape[0]):
        total = add(total, value.rows[index][index])
    return total


def _inexactly(function: Callable[..., Any]) -> Callable[..., Value]:
    def call(*values: Value) -> Value:
        numbers = [inexact(value) for value in values]
        if any(abs(number) > 1e6 for number in numbers):
            raise CapError("magnitude_cap")
        return function(*numbers)

    return call


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{
        name: _inexactly(getattr(mp, name))
        for name in (
            names(
                "sin cos tan cot sec csc sinh cosh tanh coth sech csch asin acos atan acot asec "
                "acsc "
                "asinh acosh atanh acoth asech acsch"
            )
        )
    },
    "root": _root,
    "log": _log,
    "ln": _log,
    "abs": _abs,
    "floor": _floor,
    "ceil": _ceil,
    "factorial": _factorial,
    "binomial": _binomial,
    "gcd": _gcd,
    "lcm": _lcm,
    "mod": _mod,
    "max": _extreme(max),
    "min": _extreme(min),
    "sign": lambda value: Fraction(int(mp.sign(_real(value)))),
    "re": lambda value: mp.re(inexact(value)),
    "im": lambda value: mp.im(inexact(value)),
    "arg": lambda value: mp.arg(inexact(value)),
    "conj": lambda value: _conjugate(value),
    "dagger": lambda value: _dagger(value),
    "det": _det,
    "adj": _adjugate,
    "tr": _trace,
}

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
