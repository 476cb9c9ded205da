"""The tree that an answer is read into, and the names that mathematics writes answers with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


def names(text: str) -> list[str]:
    """The names in a line of names."""
    return text.split()


class NotReadError(ValueError):
    """The text is not an answer that this reader knows; says nothing about it."""


class CapError(ValueError):
    """A value beyond a cap; the text is the cap's name."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node; equality is equality of trees.

    Operations: `num sym add mul div pow neg pm mp call` (scalars), `matrix row group set union
    intersect minus chain ratio words unit based bound` (answers made of scalars).
    """

    op: str
    args: tuple[Node, ...] = ()
    name: str = ""
    """Symbol, function, relation signs joined by blanks, brackets of a group, unit, words."""
    number: Fraction | None = None
    places: int = 0
    """Digits after the point of a number as written."""

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.args)


def number(value: Fraction | int, places: int = 0) -> Node:
    """A number as written."""
    return Node("num", number=Fraction(value), places=places)


def multiplied(left: Node, right: Node) -> Node:
    """Their product; braces around one term are brackets there."""
    left, right = (
        part.args[0] if part.op == "set" and len(part.args) == 1 else part for part in (left, right)
    )
    args = (*left.args, right) if left.op == "mul" else (left, right)
    return Node("mul", args)


GREEK = frozenset(
    names(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
        "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega "
        "varepsilon vartheta varphi varrho varsigma ell hbar nabla partial aleph"
    )
)
FUNCTION_LETTERS = frozenset("fghFG") | {"phi", "Phi", "psi", "Psi", "Gamma", "zeta"}
"""Names whose parenthesis holds an argument: `f(x)` is no product."""
CONSTANTS = {
    "pi": "pi",
    "Pi": "pi",
    "infty": "oo",
    "infinity": "oo",
    "oo": "oo",
    "inf": "oo",
    "exponentialE": "e",
    "imaginaryunit": "i",
    "imaginaryI": "i",
    "imaginaryJ": "i",
    "emptyset": "EmptySet",
    "varnothing": "EmptySet",
    "EmptySet": "EmptySet",
    "degree": "degree",
    "Reals": "Reals",
    "Naturals": "Naturals",
    "Integers": "Integers",
    "Rationals": "Rationals",
    "Complexes": "Complexes",
}
FUNCTIONS = {
    **{name: name for name in names("sin cos tan cot sec csc sinh cosh tanh coth sech csch")},
    **{name: name for name in names("exp log ln lg sqrt abs floor ceil sign re im arg conj")},
    **{name: name for name in names("gcd lcm max min det factorial binomial root mod cbrt")},
    **{"a" + name: "a" + name for name in names("sin cos tan cot sec csc sinh cosh tanh")},
    **{"arc" + name: "a" + name for name in names("sin cos tan cot sec csc sinh cosh tanh")},
    **{"ar" + name: "a" + name for name in names("sinh cosh tanh coth")},
    "arctg": "atan",
    "tg": "tan",
    "ctg": "cot",
    "cotg": "cot",
    "cosec": "csc",
    "sgn": "sign",
    "Abs": "abs",
    "ceiling": "ceil",
    "Max": "max",
    "Min": "min",
    "Mod": "mod",
    "Re": "re",
    "Im": "im",
    "conjugate": "conj",
    "adjugate": "adj",
    "adj": "adj",
    "trace": "tr",
    "cis": "cis",
    "Determinant": "det",
    "tr": "tr",
}
"""Spelling to the function it means."""
CONSTRUCTORS = frozenset(
    names(
        "Eq Interval Matrix Integral Limit Derivative Sum Product Union Intersection Complement "
        "FiniteSet Ne Ge Gt Le Lt"
    )
)
"""SymPy's own words before a parenthesis."""
PREFIX_FUNCTIONS = frozenset(
    names(
        "sin cos tan cot sec csc sinh cosh tanh coth sech csch exp log ln lg det arg sign cis tr "
        "asin acos atan acot asec acsc asinh acosh atanh acoth max min gcd lcm"
    )
)
"""Functions whose argument may stand without parentheses: `\\sin 2x`."""
RELATIONS = {
    "=": "=",
    ":=": "=",
    "==": "=",
    "equiv": "=",
    "<": "<",
    ">": ">",
    "lt": "<",
    "gt": ">",
    "le": "<=",
    "leq": "<=",
    "leqslant": "<=",
    "leqq": "<=",
    "<=": "<=",
    "ge": ">=",
    "geq": ">=",
    "geqslant": ">=",
    "geqq": ">=",
    ">=": ">=",
    "ne": "!=",
    "neq": "!=",
    "!=": "!=",
    "approx": "~",
    "approxeq": "~",
    "simeq": "~",
    "sim": "~",
    "in": "in",
    "isin": "in",
    "to": "->",
    "longrightarrow": "->",
    "Longrightarrow": "->",
    "rightarrow": "->",
    "mapsto": "->",
    "Rightarrow": "->",
    "implies": "->",
    "subset": "subset",
    "subseteq": "subset",
    "supset": "supset",
    "supseteq": "supset",
    "notin": "notin",
    "propto": "propto",
    "mid": "mid",
}
MULTIPLIERS = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
"""Words after a number that are a factor and no unit."""
CONNECTIVES = {"and": "and", "wedge": "and", "land": "and", "or": "or", "vee": "or", "lor": "or"}
SET_OPERATIONS = {"cup": "union", "cap": "intersect", "setminus": "minus", "bigcup": "union"}
NAMED_SETS = {"R": "Reals", "N": "Naturals", "Z": "Integers", "Q": "Rationals", "C": "Complexes"}
