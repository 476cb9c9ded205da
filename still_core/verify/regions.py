r"""Sets of real numbers compared by membership: intervals, unions, `x > 3`, `1 \le |z| \le 3/2`.

Two sets are the same when they agree at every endpoint, between endpoints, beyond them, and at the
places where a condition changes its truth on a fine grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mpmath import mp, mpf  # type: ignore[import-untyped]

from still_core.verify.evaluation import Point, evaluate
from still_core.verify.nodes import Node
from still_core.verify.scalars import constant_value, free_symbols, infinite
from still_core.verify.values import NoValueError, inexact

GRID = 161
"""Points of the first look for places where a condition changes."""
GRID_LIMIT = 40.0
BISECTIONS = 110
TOLERANCE_EXPONENT = -30
"""Two sides of a condition closer than 10^-30 are equal."""

_RELATIONS: dict[str, Callable[[Any], bool]] = {
    "<": lambda difference: difference < 0,
    ">": lambda difference: difference > 0,
    "<=": lambda difference: difference <= 0,
    ">=": lambda difference: difference >= 0,
    "!=": lambda difference: difference != 0,
}
_NAMED = {"Reals": True, "EmptySet": False}


def is_region(node: Node) -> bool:
    """Whether the node is a set of reals that can be asked for membership."""
    if node.op in ("union", "intersect", "minus", "both"):
        return all(is_region(arg) or _is_member(arg) for arg in node.args)
    if node.op == "group" and node.name == "{}":
        return all(not free_symbols(arg) for arg in node.args)
    if node.op == "group":
        return len(node.args) == 2 and node.name in ("()", "(]", "[)", "[]") and _bounds(node)
    if node.op == "set":
        return all(not free_symbols(arg) for arg in node.args)
    if node.op == "sym":
        return node.name in _NAMED
    if node.op == "chain":
        signs = node.name.split()
        return set(signs) <= set(_RELATIONS) and len(free_symbols(node)) == 1
    return False


def _is_member(node: Node) -> bool:
    """A number in braces that its braces have left: `[0,1] \\setminus {0.5}`."""
    return node.op in ("num", "div", "neg") and constant_value(node) is not None


def _bounds(node: Node) -> bool:
    return all(infinite(arg) or constant_value(arg) is not None for arg in node.args)


def same_region(gold: Node, pred: Node) -> bool:
    """Whether two sets have the same members."""
    variables = {name for node in (gold, pred) for name in _variables(node)}
    if len(variables) > 1 or any(name.startswith("fn:") for name in variables):
        return False
    with mp.workdps(60):
        try:
            gold, pred = _decided(gold), _decided(pred)
            marks = sorted({*_marks(gold), *_marks(pred)})
            return all(contains(gold, x) == contains(pred, x) for x in _test_points(marks))
        except NoValueError:
            return False


def _decided(node: Node) -> Node:
    """Conditions side by side: what meets all, or where nothing does, what meets one."""
    if node.op == "both":
        met = Node("intersect", tuple(_decided(arg) for arg in node.args))
        points = _test_points(sorted(_marks(met)))
        return met if any(contains(met, x) for x in points) else replace(met, op="union")
    if node.op in ("union", "intersect", "minus"):
        return replace(node, args=tuple(_decided(arg) for arg in node.args))
    return node


def _variables(node: Node) -> set[str]:
    return {name for part in node.walk() if part.op == "chain" for name in free_symbols(part)}


def _test_points(marks: list[Any]) -> list[Any]:
    points = list(marks)
    points += [(left + right) / 2 for left, right in itertools.pairwise(marks)]
    lowest, highest = (marks[0], marks[-1]) if marks else (mpf(0), mpf(0))
    for step in (mpf(1) / 1000, mpf(1), mpf(1000)):
        points += [lowest - step, highest + step]
    points += [mpf(index) * 7 / 11 for index in range(-12, 13)]
    return points


def _marks(node: Node) -> set[Any]:
    """Endpoints, members of finite sets, and places where a condition changes."""
    if node.op == "chain":
        return _changes(node)
    if node.op in ("group", "set", "num", "div", "neg"):
        parts = node.args if node.op in ("group", "set") else (node,)
        values = [constant_value(arg) for arg in parts if not infinite(arg)]
        if any(value is None for value in values):
            raise NoValueError("an endpoint that is no real number")
        return set(values)
    return {mark for arg in node.args for mark in _marks(arg)}


def _changes(chain: Node) -> set[Any]:
    grid = [mpf(index) * GRID_LIMIT / (GRID - 1) * 2 - GRID_LIMIT for index in range(GRID)]
    grid = [x + mpf(1) / 7919 for x in grid]
    constants = {
        abs(value)
        for part in chain.walk()
        if part.op in ("num", "div", "call") and (value := constant_value(part)) is not None
    }
    ends = [mpf(10) ** 4, *(value * 2 + 1 for value in constants)]
    grid = sorted({*grid, *ends, *(-end for end in ends)})
    truths = [contains(chain, x) for x in grid]
    marks = {sign * value for value in constants for sign in (1, -1)}
    for left, right, before, after in zip(grid, grid[1:], truths, truths[1:], strict=False):
        if before != after:
            marks.add(_bisect(chain, left, right, before))
    return marks


def _bisect(chain: Node, left: Any, right: Any, before: bool) -> Any:
    """Where the truth changes between two points; a whole or short decimal number is taken
    exactly."""
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        if contains(chain, middle) == before:
            left = middle
        else:
            right = middle
    middle = (left + right) / 2
    nearest = mp.nint(middle * 5040) / 5040
    return nearest if abs(nearest - middle) < mpf(10) ** -20 else middle


def contains(node: Node, x: Any) -> bool:
    """Whether `x` is a member."""
    if node.op == "chain":
        return _holds(node, x)
    if node.op == "group" and node.name != "{}":
        return _between(node, x)
    if node.op in ("num", "div", "neg"):
        return _equal(constant_value(node), x)
    if node.op in ("group", "set"):
        return any(_equal(constant_value(arg), x) for arg in node.args)
    if node.op == "sym":
        if node.name not in _NAMED:
            raise NoValueError(node.name)
        return _NAMED[node.name]
    if node.op not in ("union", "intersect", "minus"):
        raise NoValueError(node.op)
    members = [contains(arg, x) for arg in node.args]
    if node.op == "union":
        return any(members)
    if node.op == "intersect":
        return all(members)
    return members[0] and not any(members[1:])


def _equal(one: Any, other: Any) -> bool:
    return bool(abs(one - other) <= mpf(10) ** TOLERANCE_EXPONENT * max(1, abs(one)))


def _between(node: Node, x: Any) -> bool:
    low, high = node.args
    for bound, side, closed in ((low, 1, node.name[0] == "["), (high, -1, node.name[1] == "]")):
        if sign := infinite(bound):
            if sign == side:
                return False
            continue
        value = constant_value(bound)
        if _equal(value, x):
            if not closed:
                return False
        elif (x - value) * side < 0:
            return False
    return True


def _holds(chain: Node, x: Any) -> bool:
    (variable,) = free_symbols(chain)
    point = Point({variable: x})
    values = []
    for arg in chain.args:
        if sign := infinite(arg):
            values.append(mpf("inf") * sign)
            continue
        try:
            value = inexact(evaluate(arg, point))
        except NoValueError:
            return False
        if mp.im(value):
            return False
        values.append(mp.re(value))
    for sign_name, left, right in zip(chain.name.split(), values, values[1:], strict=False):
        finite = mp.isfinite(left) and mp.isfinite(right)
        difference = mpf(0) if finite and _equal(left, right) else left - right
        if not _RELATIONS[sign_name](difference):
            return False
    return True
