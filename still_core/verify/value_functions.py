"""The functions that answers are written with, on values: roots, logarithms, factorials, sines."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial, gcd, lcm
from typing import Any

from mpmath import mp, mpf  # type: ignore[import-untyped]

from still_core.verify.nodes import CapError, names
from still_core.verify.values import (
    MAX_POWER,
    Grid,
    NoValueError,
    Value,
    add,
    adjugate,
    determinant,
    inexact,
    is_whole,
)

MAX_FACTORIAL = 2_000
MAX_STEEP_BITS = 2_000
"""Highest precision at which the gamma function and its kin are computed."""


def _root(value: Value, degree: Value) -> Value:
    if isinstance(value, Fraction) and is_whole(degree) and 1 <= degree <= 64:
        exact = _exact_root(value, int(degree))
        if exact is not None:
            return exact
    radicand, index = inexact(value), inexact(degree)
    if not index:
        raise NoValueError("a root of degree zero")
    if not radicand:
        return mpf(0)
    if is_whole(degree) and degree % 2 and mp.im(radicand) == 0 and mp.re(radicand) < 0:
        return -mp.power(-radicand, 1 / index)
    if abs(1 / index) * (abs(int(mp.mag(radicand))) + 10) > MAX_POWER:
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
    if is_whole(value):
        if not value >= 0:
            raise NoValueError("factorial of a negative number")
        if value > MAX_FACTORIAL:
            raise CapError("factorial_cap")
        return Fraction(factorial(int(value)))
    return mp.gamma(_bounded(value) + 1)


def _binomial(top: Value, bottom: Value) -> Value:
    if is_whole(top) and is_whole(bottom) and top >= 0 and bottom >= 0:
        if top > MAX_FACTORIAL and min(bottom, top - bottom) > 64:
            raise CapError("factorial_cap")
        return Fraction(comb(int(top), int(bottom)))
    if is_whole(bottom) and 0 <= bottom <= 64 and isinstance(top, Fraction):
        product = Fraction(1)
        for index in range(int(bottom)):
            product *= (top - index) / (index + 1)
        return product
    return mp.binomial(_bounded(top), _bounded(bottom))


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


def _bounded(value: Value) -> Any:
    """An argument of the gamma function and its kin, which are slow far out and at many digits."""
    number = inexact(value)
    if abs(number) > MAX_FACTORIAL or mp.prec > MAX_STEEP_BITS:
        raise CapError("factorial_cap")
    return number


def _inexactly(function: Callable[..., Any]) -> Callable[..., Value]:
    def call(*values: Value) -> Value:
        numbers = [inexact(value) for value in values]
        if any(abs(number) > 1e6 for number in numbers):
            raise CapError("magnitude_cap")
        return function(*numbers)

    return call


FUNCTIONS: dict[str, Callable[..., Value]] = {
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
    "cis": lambda value: mp.expj(_bounded(value)),
    "gamma": lambda value: mp.gamma(_bounded(value)),
    "zeta": lambda value: mp.zeta(_bounded(value)),
    "adj": adjugate,
    "tr": _trace,
}
