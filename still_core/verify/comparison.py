"""Whether two answers are the same, by shape: lists, tuples, sets, relations, matrices, scalars.

    items of gold, items of pred -> rule that found them equal, or None

Scalars are compared by value (`still_core.verify.scalars`), sets of reals by membership
(`still_core.verify.regions`), the rest by shape.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from still_core.verify.conventions import Conventions
from still_core.verify.nodes import Node, names, number
from still_core.verify.regions import is_region, same_region
from still_core.verify.scalars import (
    constant_value,
    free_symbols,
    proportional,
    same_scalar,
)
from still_core.verify.text import plain_words
from still_core.verify.units import same_unit

MAX_ITEMS = 60
"""Longest list that is compared without order."""

_ALL_OF = re.compile(
    r"(?:all|any|every)?\s*(?:the\s)?(real|integer|natural|rational|complex)s?(?:\snumbers?)?",
    re.IGNORECASE,
)
_SETS = {
    "real": "Reals",
    "integer": "Integers",
    "natural": "Naturals",
    "rational": "Rationals",
    "complex": "Complexes",
}
_NOT_EXISTING = frozenset({"dne", "does not exist"})
_NAMESAKES = {"infinity": "oo", "infinite": "oo", "pi": "pi"}
_INEQUALITIES = frozenset({"<", ">", "<=", ">=", "!="})
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SCALARS = frozenset({"num", "sym", "add", "mul", "div", "neg", "pow", "call", "bound", "pm", "mp"})
_COLLECTIONS = frozenset({"group", "set"})
_NUMBER_WORDS = {
    word: value
    for value, word in enumerate(
        names(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty"
        )
    )
}


def same_answer(gold: list[Node], pred: list[Node], conventions: Conventions) -> str | None:
    """Name of the rule under which the two answers are the same, None where none does."""
    return _Comparison(conventions).answers(gold, pred)


class _Comparison:
    def __init__(self, conventions: Conventions) -> None:
        self.conventions = conventions

    def answers(self, gold: list[Node], pred: list[Node]) -> str | None:
        gold, pred = (_signs_resolved(_without_conditions(items)) for items in (gold, pred))
        if len(gold) == len(pred) == 1:
            return self.items(gold[0], pred[0])
        if len(gold) == 1 and (rule := self.collection_and_list(gold[0], pred)):
            return rule
        if len(pred) == 1 and (rule := self.collection_and_list(pred[0], gold)):
            return rule
        if is_region(regions := _together(gold)) and is_region(others := _together(pred)):
            return "region" if same_region(regions, others) else None
        if self.conventions.order == "fixed":
            return "list" if self.in_order(gold, pred) else None
        return "list" if self.any_order(gold, pred) else None

    def collection_and_list(self, one: Node, many: list[Node]) -> str | None:
        """A bare list beside a tuple (in order) or a set (in any order)."""
        core = self.without_label(one)
        if core.op == "set":
            return "set" if self.any_order(_signs_resolved(list(core.args)), many) else None
        if core.op == "group" and core.name == "{}" and self.conventions.order == "free":
            return "set" if self.any_order(_signs_resolved(list(core.args)), many) else None
        if core.op == "group" and core.name in ("()", "[]", "{}"):
            return "list" if self.in_order(core.args, many) else None
        return None

    def in_order(self, gold: Sequence[Node], pred: Sequence[Node]) -> bool:
        return len(gold) == len(pred) and all(
            self.items(one, other) is not None for one, other in zip(gold, pred, strict=True)
        )

    def any_order(self, gold: Sequence[Node], pred: Sequence[Node]) -> bool:
        """Equality as sets: doubles count once."""
        gold, pred = self.distinct(gold), self.distinct(pred)
        if len(gold) != len(pred) or len(gold) > MAX_ITEMS:
            return False
        left = list(pred)
        for one in gold:
            at = next((i for i, other in enumerate(left) if self.items(one, other)), None)
            if at is None:
                return False
            left.pop(at)
        return True

    def distinct(self, items: Sequence[Node]) -> list[Node]:
        kept: list[Node] = []
        for item in items[: 4 * MAX_ITEMS]:
            if item not in kept and not (
                len(items) <= 12 and any(self.items(item, other) for other in kept)
            ):
                kept.append(item)
        return kept

    # -- one item ----------------------------------------------------------------------------

    def items(self, gold: Node, pred: Node) -> str | None:
        """The rule under which two items are the same."""
        if gold == pred:
            return "structure"
        gold, pred = _without_name(gold), _without_name(pred)
        if _is_scalar(gold) != _is_scalar(pred):
            gold, pred = _only_member(gold), _only_member(pred)
        if gold.op == "unit" or pred.op == "unit":
            return self.with_units(gold, pred)
        if "chain" in (gold.op, pred.op):
            return self.relations(gold, pred)
        if "words" in (gold.op, pred.op):
            return self.words(gold, pred)
        if gold.op in _COLLECTIONS and pred.op in _COLLECTIONS:
            # Not as regions: the tuples (5, 2) and (7, 3) would both be empty intervals.
            return self.collections(gold, pred)
        if "matrix" in (gold.op, pred.op) and (found := self.matrices(gold, pred)):
            return found
        if "ratio" in (gold.op, pred.op):
            return self.ratios(gold, pred)
        if "based" in (gold.op, pred.op):
            return self.based(gold, pred)
        if is_region(gold) and is_region(pred):
            return "region" if same_region(gold, pred) else None
        return same_scalar(gold, pred, self.conventions.rounding_digits)

    def with_units(self, gold: Node, pred: Node) -> str | None:
        gold_unit = gold.name if gold.op == "unit" else ""
        pred_unit = pred.name if pred.op == "unit" else ""
        gold_core = gold.args[0] if gold.op == "unit" else gold
        pred_core = pred.args[0] if pred.op == "unit" else pred
        conventions = self.conventions
        if "percent" in (gold_unit, pred_unit) and gold_unit != pred_unit:
            as_value = [_percent_as_value(node) for node in (gold, pred)]
            if conventions.percent != "unit" and (rule := self.items(*as_value)):
                return rule
            if conventions.percent == "value":
                return None
        if conventions.units == "required" and gold_unit != pred_unit:
            return None
        both = conventions.units == "optional" and gold_unit and pred_unit
        if both and not same_unit(gold_unit, pred_unit):
            return None
        return self.items(gold_core, pred_core)

    def words(self, gold: Node, pred: Node) -> str | None:
        if gold.op == pred.op == "words":
            wanted = _singular(plain_words(gold.name))
            found = _singular(plain_words(pred.name))
            same = wanted == found or {wanted, found} <= _NOT_EXISTING
            return "words" if wanted and same else None
        for one, other in ((gold, pred), (pred, gold)):
            value = _NUMBER_WORDS.get(one.name.lower()) if one.op == "words" else None
            if value is not None and other.op == "num":
                return "number_word" if other.number == value else None
            if one.op == "words" and other.op == "sym":
                kind = _ALL_OF.fullmatch(one.name)
                if kind is not None and _SETS[kind[1].lower()] == other.name:
                    return "words"
                return "words" if other.name in (one.name, _NAMESAKES.get(one.name)) else None
        return None

    # -- relations ---------------------------------------------------------------------------

    def without_label(self, node: Node) -> Node:
        """`x = 5` as `5`, `x \\in S` as `S`; the node itself where nothing can be dropped."""
        if node.op != "chain" or self.conventions.left_side == "required":
            return node
        node = _after_arrow(node)
        if node.op != "chain":
            return node
        signs = set(node.name.split())
        left, right = node.args[:-1], node.args[-1]
        if signs == {"in"} and len(left) == 1 and _is_label(left[0]):
            return right
        if not signs <= {"=", "~"}:
            return node
        if _is_label(left[0]) or _is_label(left[-1]):
            return right
        if not any(free_symbols(part) for part in node.args) and _consistent(node.args):
            return right
        return node

    def relations(self, gold: Node, pred: Node) -> str | None:
        gold, pred = _after_arrow(gold), _after_arrow(pred)
        if gold.op == pred.op == "chain" and (rule := self.chains(gold, pred)):
            return rule
        short_gold, short_pred = self.without_label(gold), self.without_label(pred)
        if "chain" not in (short_gold.op, short_pred.op):
            if gold.op == pred.op == "chain" and not _labels_agree(gold, pred):
                return None
            if rule := self.items(short_gold, short_pred):
                return rule
            return self.approximate(gold, pred, short_gold)
        if is_region(short_gold) and is_region(short_pred):
            return "region" if same_region(short_gold, short_pred) else None
        return None

    def approximate(self, gold: Node, pred: Node, short_gold: Node) -> str | None:
        """`exact \\approx rounded`: the exact part may be what gold says, if the two do agree."""
        for chain, other in ((pred, gold), (gold, pred)):
            if chain.op != "chain" or not chain.name.endswith("~"):
                continue
            exact, rounded = chain.args[-2], chain.args[-1]
            if same_scalar(exact, rounded, 2) or _close(exact, rounded):
                target = short_gold if other is gold else self.without_label(other)
                if rule := self.items(target, exact):
                    return rule
        return None

    def chains(self, gold: Node, pred: Node) -> str | None:
        """Relation beside relation: the same up to a factor, a shift of terms, or its direction."""
        if len(gold.args) != len(pred.args):
            return None
        signs, other_signs = gold.name.split(), pred.name.split()
        if all(sign in ("=", "~", "!=") for sign in signs):
            if [s for s in signs if s != "~"] != [s for s in other_signs if s != "~"]:
                return None
            return self.equations(gold, pred)
        if not set(signs) | set(other_signs) <= _INEQUALITIES:
            same = signs == other_signs and self.in_order(gold.args, pred.args)
            return "relation" if same else None
        if signs[0] in _FLIPPED and other_signs[0] == _FLIPPED.get(signs[0]) and len(signs) > 1:
            pred = Node(
                "chain",
                tuple(reversed(pred.args)),
                " ".join(_FLIPPED.get(sign, sign) for sign in reversed(other_signs)),
            )
            other_signs = pred.name.split()
        return "inequality" if self.inequalities(gold, pred, signs, other_signs) else None

    def equations(self, gold: Node, pred: Node) -> str | None:
        if len(gold.args) != 2:
            return "relation" if self.in_order(gold.args, pred.args) else None
        same_sides = self.in_order(gold.args, pred.args)
        if same_sides or self.in_order(gold.args, pred.args[::-1]):
            return "relation"
        if not all(_is_scalar(part) for part in (*gold.args, *pred.args)):
            return None
        factor = proportional(_difference(*gold.args), _difference(*pred.args))
        return "equation" if factor is not None else None

    def inequalities(
        self, gold: Node, pred: Node, signs: list[str], other_signs: list[str]
    ) -> bool:
        for index, (sign, other) in enumerate(zip(signs, other_signs, strict=True)):
            parts = (*gold.args[index : index + 2], *pred.args[index : index + 2])
            if not all(_is_scalar(part) for part in parts):
                return False
            factor = proportional(_difference(*parts[:2]), _difference(*parts[2:]))
            if factor is None:
                return False
            expected = sign if factor > 0 else _FLIPPED.get(sign, sign)
            if other != expected:
                return False
        return True

    # -- collections -------------------------------------------------------------------------

    def collections(self, gold: Node, pred: Node) -> str | None:
        if gold.op == pred.op == "set":
            members = _signs_resolved(list(gold.args)), _signs_resolved(list(pred.args))
            return "set" if self.any_order(*members) else None
        if gold.op == "set" or pred.op == "set":
            braces = gold if gold.op == "set" else pred
            other = pred if gold.op == "set" else gold
            plain = other.name == "{}" or (
                other.name == "[]" and all(arg.op == "matrix" for arg in other.args)
            )
            return "set" if plain and self.any_order(braces.args, other.args) else None
        if gold.name == pred.name == "{}":
            return "set" if self.any_order(gold.args, pred.args) else None
        if len(gold.args) != len(pred.args):
            return None
        if len(gold.args) == 2 and gold.name != pred.name and "{}" not in (gold.name, pred.name):
            # An interval where the ends ascend; else both are tuples, whatever their brackets.
            low, high = (constant_value(arg) for arg in gold.args)
            if low is None or high is None or low <= high:
                return None
        return "tuple" if self.in_order(gold.args, pred.args) else None

    def matrices(self, gold: Node, pred: Node) -> str | None:
        if gold.op == pred.op == "matrix":
            same = len(gold.args) == len(pred.args) and all(
                self.in_order(one.args, other.args)
                for one, other in zip(gold.args, pred.args, strict=True)
            )
            return "matrix" if same else None
        matrix, other = (gold, pred) if gold.op == "matrix" else (pred, gold)
        if other.op == "group" and all(row.op == "group" for row in other.args):
            listed = Node("matrix", tuple(Node("row", row.args) for row in other.args))
            return self.matrices(matrix, listed)
        cells = [cell for row in matrix.args for cell in row.args]
        flat = len(matrix.args) == 1 or all(len(row.args) == 1 for row in matrix.args)
        if other.op == "group" and flat and len(cells) > 1:
            return "vector" if self.in_order(cells, other.args) else None
        return None

    def ratios(self, gold: Node, pred: Node) -> str | None:
        if gold.op == pred.op == "ratio" and len(gold.args) == len(pred.args):
            if self.in_order(gold.args, pred.args):
                return "ratio"
            pairs = zip(gold.args, pred.args, strict=True)
            scaled = [Node("div", (one, other)) for one, other in pairs]
            first = scaled[0]

            def same(part: Node) -> bool:
                return bool(same_scalar(first, part, 0))

            return "ratio" if all(same(part) for part in scaled[1:]) else None
        ratio, other = (gold, pred) if gold.op == "ratio" else (pred, gold)
        if len(ratio.args) == 2 and _is_scalar(other):
            return "ratio" if same_scalar(Node("div", ratio.args), other, 0) else None
        return None

    def based(self, gold: Node, pred: Node) -> str | None:
        """A base is read like a unit: it may be missing, and two bases are compared by value."""
        if gold.op == pred.op == "based":
            values = [_in_base(node) for node in (gold, pred)]
            return "base" if values[0] is not None and values[0] == values[1] else None
        based, other = (gold, pred) if gold.op == "based" else (pred, gold)
        digits = number(int(based.name)) if based.name.isascii() and based.name.isdigit() else None
        return "base" if digits == replace(other, places=0) else None


def _without_conditions(items: list[Node]) -> list[Node]:
    r"""Items without what only says which values a name takes: `k\pi, k \in \mathbb{Z}`."""

    def is_condition(item: Node) -> bool:
        if item.op != "chain" or item.name != "in" or item.args[0].op != "sym":
            return False
        others = {name for other in items if other is not item for name in free_symbols(other)}
        return item.args[1].op == "sym" and item.args[0].name in others

    return [item for item in items if not is_condition(item)] or items


def _together(items: list[Node]) -> Node:
    """A list of conditions as one set; anything else stays no set of reals."""
    if len(items) == 1:
        return items[0]
    conditions = all(item.op == "chain" for item in items)
    return Node("both" if conditions else "list", tuple(items))


def _in_base(node: Node) -> int | None:
    assert node.number is not None
    try:
        return int(node.name, int(node.number))
    except ValueError:
        return None


def _percent_as_value(node: Node) -> Node:
    if node.op == "unit" and node.name == "percent":
        return Node("div", (node.args[0], number(100)))
    return node


def _is_scalar(node: Node) -> bool:
    return node.op in _SCALARS or (node.op == "unit" and _is_scalar(node.args[0]))


def _difference(left: Node, right: Node) -> Node:
    return Node("add", (left, Node("neg", (right,))))


def _after_arrow(node: Node) -> Node:
    r"""What follows the last `\to` or `\Rightarrow`."""
    if node.op != "chain":
        return node
    signs = node.name.split()
    if "->" not in signs:
        return node
    last = len(signs) - 1 - signs[::-1].index("->")
    rest = node.args[last + 1 :]
    return rest[0] if len(rest) == 1 else Node("chain", rest, " ".join(signs[last + 1 :]))


def _without_name(node: Node) -> Node:
    """`A(2, -1)` as the point that it names; any other node itself."""
    if node.op != "mul" or len(node.args) != 2 or node.args[1].op != "group":
        return node
    name, point = node.args
    named = name.op == "sym" and len(name.name) == 1 and name.name.isupper()
    return point if named and point.name == "()" else node


def _only_member(node: Node) -> Node:
    r"""`\{5\}` beside a number is the number."""
    return node.args[0] if node.op == "set" and len(node.args) == 1 else node


def _singular(words: str) -> str:
    """Words without the plural of the last one: "no solutions" is "no solution"."""
    return words[:-1] if len(words) > 4 and words[-1] == "s" and words[-2] not in "su" else words


def _is_label(node: Node) -> bool:
    """Whether a left side only names what is asked: `x`, `f(x)`, `|AB|`, `AB/CD`, `(p, q)`."""
    if node.op in ("sym", "words"):
        return node.name not in ("oo", "pi", "e", "i")
    if node.op == "call" and node.name.startswith("fn:"):
        return True
    if (node.op == "call" and node.name == "abs") or (node.op == "bound" and node.name == "diff"):
        return _is_label(node.args[0])
    if node.op in ("mul", "div", "ratio", "group"):
        return all(_is_label(arg) for arg in node.args)
    return False


def _labels_agree(gold: Node, pred: Node) -> bool:
    """Two different names are two different claims; words name nothing in particular."""
    left, right = gold.args[0], pred.args[0]
    if gold.name != "=" or pred.name != "=" or left == right:
        return True
    return not (left.op == right.op and left.op in ("sym", "call"))


def _consistent(parts: Sequence[Node]) -> bool:
    """Whether numbers said to be equal are, within one percent: `1 = 2 = 3` states nothing."""
    return all(
        not (_is_plain(one) and _is_plain(other)) or _close(one, other)
        for one, other in itertools.pairwise(parts)
    )


def _is_plain(node: Node) -> bool:
    return _is_scalar(node) and node.op != "unit" and constant_value(node) is not None


def _close(exact: Node, rounded: Node) -> bool:
    """Within one percent: a rounding said in passing, not a second answer."""
    one, other = constant_value(exact), constant_value(rounded)
    if one is None or other is None:
        return False
    return bool(abs(one - other) <= abs(one) / 100)


def _signs_resolved(items: list[Node]) -> list[Node]:
    """Items with plus-minus become two items each, upper signs first."""
    resolved: list[Node] = []
    for item in items[: 4 * MAX_ITEMS]:
        if any(node.op in ("pm", "mp") for node in item.walk()):
            resolved += [_with_sign(item, 1), _with_sign(item, -1)]
        else:
            resolved.append(item)
    return resolved


def _with_sign(node: Node, sign: int) -> Node:
    args = tuple(_with_sign(arg, sign) for arg in node.args)
    if node.op in ("pm", "mp"):
        positive = (node.op == "pm") == (sign > 0)
        return args[0] if positive else Node("neg", args)
    return replace(node, args=args)
