"""Values of answers and their arithmetic: exact fractions, inexact numbers, matrices.

Every operation is capped beforehand, so that the time is bounded by the size of the tree.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf  # type: ignore[import-untyped]

from still_core.verify.nodes import CapError

BASE_BITS = 220
"""Precision of a first evaluation, in bits (66 digits)."""
MAX_BITS = 20_000
"""Largest exact number, and largest precision, in bits; more is over the cap."""
MAX_POWER = 1_000_000
"""Largest binary exponent of an inexact number."""
Value = Any
"""Fraction (exact), mpf, mpc, or Grid."""


class NoValueError(ArithmeticError):
    """The tree has no value here: a division by zero, a pole, a set in place of a number."""


class Grid:
    """A matrix of values."""

    def __init__(self, rows: list[list[Value]]) -> None:
        self.rows = rows
        self.shape = (len(rows), len(rows[0]))


def inexact(value: Value) -> Any:
    """A scalar as mpf or mpc."""
    if isinstance(value, Fraction):
        return mpf(value.numerator) / value.denominator
    if isinstance(value, Grid):
        raise NoValueError("a matrix in place of a number")
    return value


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


def power(base: Value, exponent: Value) -> Value:
    """`base` to the `exponent`, capped before anything is computed."""
    if isinstance(base, Grid):
        return _matrix_power(base, exponent)
    if isinstance(exponent, Grid):
        raise NoValueError("a matrix as exponent")
    whole = None
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
    size = abs(int(mp.mag(base))) + 10
    if abs(exponent) * size > MAX_POWER:
        raise CapError("exponent_cap")
    return base**whole if whole is not None else mp.power(base, exponent)


def _odd_power(base: Value, exponent: Value) -> Value | None:
    """A negative number to p/q with q odd is taken as real, like its root."""
    if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
        return None
    if exponent.denominator == 1 or isinstance(base, mpc) or not base < 0:
        return None
    size = power(-base, exponent)
    return -size if exponent.numerator % 2 else size


def _matrix_power(base: Grid, exponent: Value) -> Value:
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


def adjugate(grid: Grid) -> Grid:
    """The transposed matrix of cofactors; 2 x 2 to 6 x 6."""
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
    inverse: Grid = multiply(adjugate(grid), reciprocal)
    return inverse


def is_whole(value: Value) -> bool:
    """Whether a value is an exact integer."""
    return isinstance(value, Fraction) and value.denominator == 1
