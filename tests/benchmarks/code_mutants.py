"""Small changes to a program, one at a time: what a verifier of programs should notice."""

from __future__ import annotations

import ast
import copy
import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """A changed program and what was changed."""

    source: str
    change: str


_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}

Change = Callable[[ast.AST], str]
"""Changes a node in place and says how."""


def mutants(source: str, count: int, seed: int) -> list[Mutant]:
    """At most `count` different changes of `source`, drawn by `seed`."""
    tree = ast.parse(source)
    sites = list(_sites(tree))
    random.Random(seed).shuffle(sites)
    found: list[Mutant] = []
    for index, change in sites[:count]:
        changed = copy.deepcopy(tree)
        node = next(itertools.islice(ast.walk(changed), index, None))
        said = change(node)
        found.append(Mutant(ast.unparse(changed), f"line {getattr(node, 'lineno', 0)}: {said}"))
    return found


def other_values(source: str) -> Mutant:
    """The same program whose functions return something else, wherever they return."""
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    wrapped = "".join(
        f"\n_was_{name} = {name}\ndef {name}(*a, **k):\n    v = _was_{name}(*a, **k)\n"
        "    return (not v) if isinstance(v, bool) else [v, 'mutated']\n"
        for name in names
    )
    return Mutant(source + wrapped, "every function returns something else")


def _sites(tree: ast.AST) -> Iterator[tuple[int, Change]]:
    """Places of change, as (index in the walk, change)."""
    idle = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
            yield index, _other_comparison
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            yield index, _other_operation
        elif isinstance(node, ast.BoolOp):
            yield index, _other_connective
        elif isinstance(node, ast.Constant) and id(node) not in idle:
            if isinstance(node.value, bool | int | str):
                yield index, _other_constant
        elif isinstance(node, ast.If | ast.IfExp):
            yield index, _negated
        elif isinstance(node, ast.Return) and node.value is not None:
            yield index, _returns_nothing


def _other_comparison(node: ast.AST) -> str:
    assert isinstance(node, ast.Compare)
    before = type(node.ops[0])
    node.ops[0] = _COMPARISONS[before]()
    return f"{before.__name__} to {_COMPARISONS[before].__name__}"


def _other_operation(node: ast.AST) -> str:
    assert isinstance(node, ast.BinOp)
    before = type(node.op)
    node.op = _OPERATIONS[before]()
    return f"{before.__name__} to {_OPERATIONS[before].__name__}"


def _other_connective(node: ast.AST) -> str:
    assert isinstance(node, ast.BoolOp)
    before = type(node.op)
    node.op = ast.Or() if before is ast.And else ast.And()
    return f"{before.__name__} to {type(node.op).__name__}"


def _other_constant(node: ast.AST) -> str:
    assert isinstance(node, ast.Constant)
    before = node.value
    if isinstance(before, bool):
        node.value = not before
    elif isinstance(before, int):
        node.value = before + 1
    else:
        node.value = f"{before}x"
    return f"{before!r} to {node.value!r}"


def _negated(node: ast.AST) -> str:
    assert isinstance(node, ast.If | ast.IfExp)
    node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
    return "condition negated"


def _returns_nothing(node: ast.AST) -> str:
    assert isinstance(node, ast.Return)
    node.value = ast.Constant(value=None)
    return "returns None"
