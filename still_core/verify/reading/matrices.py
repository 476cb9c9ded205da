"""Matrices and other environments with rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from still_core.verify.nodes import Node, NotReadError, names

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader

_MATRICES = frozenset(
    names("matrix pmatrix bmatrix vmatrix Bmatrix Vmatrix array smallmatrix cases")
)


def read_matrix(reader: Reader) -> Node:
    """The rows of an environment, up to its end; its name has not been taken."""
    name = reader.group_text()
    if name not in _MATRICES:
        raise NotReadError(f"environment {name}")
    if name == "array" and reader.is_op("{"):
        reader.group_text()
    reader.deeper()
    rows: list[list[Node]] = [[]]
    while not reader.is_cmd("end"):
        if reader.peek().kind == "end":
            raise NotReadError(f"unclosed {name}")
        if reader.is_op("&"):
            reader.at += 1
        elif reader.is_op("\\\\"):
            reader.at += 1
            rows.append([])
        elif reader.is_cmd("hline"):
            reader.at += 1
        else:
            rows[-1].append(reader.relation())
    reader.at += 1
    reader.group_text()
    reader.depth -= 1
    kept = tuple(Node("row", tuple(row)) for row in rows if row)
    if not kept or len({len(row.args) for row in kept}) != 1:
        raise NotReadError("rows of different lengths")
    matrix = Node("matrix", kept)
    if name == "vmatrix":
        return Node("call", (matrix,), "det")
    return matrix
