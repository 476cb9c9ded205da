"""Equality of two scalars by value, and of two expressions up to a factor.

Constants are compared to 40 digits and more; expressions with symbols at several random points,
some positive and some of either sign, all of which must agree. A false agreement at one random
point of a 2^60 grid has odds of about degree / 2^60.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf  # type: ignore[import-untyped]

from still_core.verify.evaluation import Point, evaluate, random_value
from still_core.verify.nodes import CapError, Node, number
from still_core.verify.rounding import Decimal, stands_for
from still_core.verify.values import BASE_BITS, MAX_BITS, Grid, NoValueError, inexact

MAX_EXPONENT = 400
"""Largest exponent of ten that a number as written may have."""
GUARD_BITS = 70
"""Bits of the precision that rounding errors may have spoilt."""
TRIALS = ((False, 1), (False, 1), (False, 1), (True, 1), (True, 1), (True, 1))
"""Points to compare at: whether signs are drawn, and how far out."""
FAR_TRIALS = ((False, 40), (False, -40), (False, 3000), (False, -3000))
"""Further points where something may change far out: they tell `max(5, x)` from 5."""
_PIECEWISE = frozenset({"abs", "floor", "ceil", "max", "min", "sign", "mod", "root", "arg"})
_STEEP = frozenset({"factorial", "binomial", "gamma"})
ATTEMPTS = 4
"""Points tried in place of one at which an expression has no value."""

_NAMED = frozenset({"pi", "e", "i", "oo", "EmptySet", "Reals"})


def free_symbols(node: Node) -> set[str]:
    """Names of symbols without a fixed value; an unknown function counts as one."""
    names = set()
    for part in node.walk():
        if (part.op == "sym" and part.name not in _NAMED) or (
            part.op == "call" and part.name.startswith("fn:")
        ):
            names.add(part.name)
    return names


def infinite(node: Node) -> int:
    """1 and -1 for the infinities, 0 for everything else."""
    if node.op == "sym" and node.name == "oo":
        return 1
    return -infinite(node.args[0]) if node.op == "neg" else 0


def written(node: Node) -> Decimal | None:
    """The number as written, where the node is one."""
    if node.op == "num" and node.number is not None:
        return Decimal(node.number, node.places, exact=node.places == 0)
    if node.op == "mul" and len(node.args) == 2:
        return _scientific(*node.args)
    if node.op == "neg" and (inner := written(node.args[0])) is not None:
        return Decimal(-inner.value, inner.places, exact=inner.exact)
    return None


def _scientific(mantissa: Node, power: Node) -> Decimal | None:
    r"""`1.27 \times 10^{30}` as a number as written: it shows three digits."""
    if power.op != "pow" or mantissa.op != "num" or not mantissa.places:
        return None
    base, exponent = power.args
    exponent_value = constant_value(exponent)
    if base != number(10) or exponent_value is None or exponent_value != int(exponent_value):
        return None
    if abs(exponent_value) > MAX_EXPONENT:
        return None
    assert mantissa.number is not None
    value = mantissa.number * Fraction(10) ** int(exponent_value)
    return Decimal(value, mantissa.places - int(exponent_value), exact=False)


def same_scalar(gold: Node, pred: Node, rounding_digits: int) -> str | None:
    """The rule under which two scalars are equal: `value`, `rounded` or `points`."""
    if infinite(gold) or infinite(pred):
        return "value" if infinite(gold) == infinite(pred) else None
    if free_symbols(gold) or free_symbols(pred):
        return "points" if _same_at_points(gold, pred) else None
    pair = _values(gold, pred, Point({}), Point({}))
    if pair is None:
        return None
    if _agree(*pair):
        return "value"
    return "rounded" if _rounded(gold, pred, pair, rounding_digits) else None


def constant_value(node: Node) -> Any:
    """The value of a node without symbols as mpf, None where it has none or is not real."""
    if free_symbols(node):
        return None
    try:
        value = inexact(evaluate(node, Point({})))
    except NoValueError:
        return None
    return None if isinstance(value, mpc) else value


def _values(gold: Node, pred: Node, first: Point, second: Point) -> tuple[Any, Any] | None:
    """Both values, at a precision that resolves the largest magnitude met on the way."""
    with mp.workprec(BASE_BITS):
        try:
            pair = evaluate(gold, first), evaluate(pred, second)
        except NoValueError:
            return None
        bits = max(first.bits, second.bits)
    if bits <= GUARD_BITS or all(isinstance(value, Fraction) for value in pair):
        return pair
    first.operations = second.operations = 0
    with mp.workprec(min(BASE_BITS + 2 * bits, MAX_BITS)):
        try:
            return evaluate(gold, first), evaluate(pred, second)
        except NoValueError:
            return None


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, Grid) or isinstance(other, Grid):
        if not (isinstance(one, Grid) and isinstance(other, Grid)) or one.shape != other.shape:
            return False
        rows = zip(one.rows, other.rows, strict=True)
        return all(_agree(x, y) for a, b in rows for x, y in zip(a, b, strict=True))
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    with mp.workprec(BASE_BITS):  # what is exact must not be rounded to a double here
        return _near(inexact(one), inexact(other))


def _near(left: Any, right: Any) -> bool:
    """Both were computed with at least BASE_BITS; absolute below one, relative above."""
    size = max(abs(left), abs(right))
    scale = max(mpf(1), size)
    if size < mpf(2) ** -GUARD_BITS:
        scale = max(size, mpf(2) ** (-2 * GUARD_BITS))
    return bool(abs(left - right) <= scale * mpf(2) ** (GUARD_BITS - BASE_BITS))


def _rounded(gold: Node, pred: Node, pair: tuple[Any, Any], digits: int) -> bool:
    """Whether one side is a decimal that stands for the other side's value."""
    shown_gold, shown_pred = written(gold), written(pred)
    if shown_pred is not None and not shown_pred.exact:
        exact = _as_fraction(pair[0])
        if exact is not None and (shown_gold is None or shown_gold.exact):
            return stands_for(shown_pred, exact, digits)
    if shown_gold is not None and not shown_gold.exact:
        exact = _as_fraction(pair[1])
        if exact is not None and (shown_pred is None or shown_pred.exact):
            return stands_for(shown_gold, exact, digits)
    if shown_gold is not None and shown_pred is not None:
        from still_core.verify.rounding import same_number

        return same_number(shown_gold, shown_pred, digits)
    return False


def _as_fraction(value: Any) -> Fraction | None:
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, mpf) or not value:
        return None
    mantissa, exponent = value.man_exp
    if abs(exponent) > MAX_BITS:
        return None
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _points(*nodes: Node) -> Iterator[tuple[dict[str, Fraction], int, bool]]:
    """Points to compare at; each comes with its trial number and whether it is far out."""
    symbols = sorted(free_symbols(nodes[0]) | free_symbols(nodes[1]))
    calls = {part.name for node in nodes for part in node.walk() if part.op == "call"}
    far = FAR_TRIALS if calls & _PIECEWISE and not calls & _STEEP else ()
    for trial, (signed, scale) in enumerate((*TRIALS, *far), 1):
        values = {name: scale * random_value("at", name, trial, signed=signed) for name in symbols}
        yield values, trial, trial > len(TRIALS)


def _at(
    one: Node, other: Node, values: dict[str, Fraction], trial: int, far: bool
) -> tuple[Any, Any] | None:
    """Both values at a point; None where one has none there, or far out is too large to compute."""
    try:
        return _values(one, other, Point(values, trial=trial), Point(values, trial=trial))
    except CapError:
        if not far:
            raise
        return None


def _same_at_points(gold: Node, pred: Node) -> bool:
    compared = 0
    for values, trial, far in _points(gold, pred):
        pair = _at(gold, pred, values, trial, far)
        if pair is None:
            continue
        if not _agree(*pair):
            return False
        compared += 1
    return compared >= 2


def proportional(one: Node, other: Node) -> int | None:
    """1 or -1: the sign of the constant c with `one` = c * `other`; None where there is none.

    Both must really vary: of two constants each is a multiple of the other.
    """
    if not free_symbols(one) or not free_symbols(other):
        return None
    factor: Any = None
    compared = 0
    for values, trial, far in _points(one, other):
        pair = _at(one, other, values, trial, far)
        if pair is None or any(isinstance(value, Grid) for value in pair):
            continue
        if not pair[0] or not pair[1]:
            return None
        with mp.workprec(BASE_BITS):
            ratio = inexact(pair[0]) / inexact(pair[1])
            if factor is not None and not _agree(ratio / factor, Fraction(1)):
                return None
        factor = ratio if factor is None else factor
        compared += 1
    if compared < 2 or mp.im(factor):
        return None
    return 1 if mp.re(factor) > 0 else -1
