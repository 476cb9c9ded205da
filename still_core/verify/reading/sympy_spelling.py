"""SymPy's own spelling of what LaTeX has signs for: `Eq(a, b)`, `Interval.open(0, 1)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import Node, NotReadError
from still_core.verify.reading.brackets import read_bracketed
from still_core.verify.scalars import infinite

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


_RELATIONS = {"Eq": "=", "Ne": "!=", "Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}


def read_external(reader: Reader, text: str) -> Node:
    """SymPy's own spelling of what LaTeX has signs for: `Eq(a, b)`, `Interval.open(0, 1)`."""
    variant = ""
    if reader.is_op("."):
        reader.at += 1
        variant = reader.take().value
    reader.expect("(")
    if text == "Limit":
        return _limit(reader)
    rows = _rows_ahead(reader)
    inner = read_bracketed(reader, "(")
    args = inner.args if inner.op == "group" and inner.name == "()" else (inner,)
    if text in ("Integral", "Derivative", "Sum", "Product"):
        return _bound(text, args)
    if text in _RELATIONS and len(args) == 2:
        return Node("chain", args, _RELATIONS[text])
    if text == "Interval" and len(args) == 2:
        fences = {"": "[]", "open": "()", "Lopen": "(]", "Ropen": "[)"}
        fence = fences.get(variant, "[]")
        left = "(" if infinite(args[0]) else fence[0]
        right = ")" if infinite(args[1]) else fence[1]
        return Node("group", args, left + right)
    if text == "Matrix":
        return _transposed(reader, _listed_matrix(inner, rows))
    if text in ("Union", "Intersection", "Complement") and len(args) == 2:
        names = {"Union": "union", "Intersection": "intersect", "Complement": "minus"}
        return Node(names[text], args)
    if text == "FiniteSet":
        return Node("set", args)
    raise NotReadError(text)


def _limit(reader: Reader) -> Node:
    """`Limit(f, x, 3, dir='-')` after its parenthesis."""
    args = [reader.relation()]
    while reader.is_op(",") and reader.peek(1).value != "dir":
        reader.at += 1
        args.append(reader.relation())
    side = ""
    if reader.is_op(","):
        start = reader.at
        while not reader.is_op(")") and reader.peek().kind != "end":
            reader.at += 1
        side = "".join(token.value for token in reader.tokens[start : reader.at])
    reader.expect(")")
    if len(args) != 3:
        raise NotReadError("Limit")
    # SymPy writes '+-' for both sides and '-' for one at infinity.
    left = side.endswith("'-'") and not any(node.name == "oo" for node in args[2].walk())
    return Node("bound", tuple(args), "lim-" if left else "lim")


def _transposed(reader: Reader, node: Node) -> Node:
    """`Matrix(...).T`."""
    if reader.is_op(".") and reader.peek(1).value == "T":
        reader.at += 2
        return Node("pow", (node, Node("sym", name="T")))
    return node


def _bound(text: str, args: tuple[Node, ...]) -> Node:
    """`Integral(f, (x, a, b))` and its kin as the node that LaTeX's spelling gives."""
    name = {"Integral": "int", "Derivative": "diff", "Sum": "sum", "Product": "prod"}[text]
    if len(args) != 2:
        raise NotReadError(text)
    body, over = args
    parts = over.args if over.op == "group" else (over,)
    if parts[0].op != "sym" or (name in ("sum", "prod") and len(parts) != 3):
        raise NotReadError(text)
    return Node("bound", (body, *parts), name)


def _rows_ahead(reader: Reader) -> int:
    """How many lists stand in the list that starts here; 0 for a list of numbers."""
    depth = rows = 0
    for token in reader.tokens[reader.at :]:
        if token.value == "[":
            depth += 1
            rows += depth == 2
        elif token.value == "]":
            depth -= 1
        if depth == 0:
            break
    return rows


def _listed_matrix(inner: Node, num_rows: int) -> Node:
    """`[[1, 2], [3, 4]]` as a matrix; a list of one element has lost its brackets to the reader."""
    if num_rows == 1 and not any(row.op == "group" for row in inner.args):
        return Node("matrix", (Node("row", inner.args if inner.op == "group" else (inner,)),))
    rows = inner.args if inner.op == "group" and inner.name == "[]" else (inner,)
    if all(row.op == "group" and row.name == "[]" for row in rows):
        return Node("matrix", tuple(Node("row", row.args) for row in rows))
    if any(row.op == "group" for row in rows):
        raise NotReadError("rows of different lengths")
    return Node("matrix", tuple(Node("row", (row,)) for row in rows))
