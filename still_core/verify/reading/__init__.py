r"""From text to a tree: the reader of answers, LaTeX and plain.

    text -> tokens -> list of items (comma, semicolon, "and", "or") -> Node

Recursive descent with a depth cap; no `eval`, no SymPy, time linear in the number of tokens. What
it does not know raises `NotReadError`.
"""

from __future__ import annotations

from still_core.verify.nodes import Node, NotReadError
from still_core.verify.reading.reader import Reader
from still_core.verify.reading.tokens import clean, tokenize

__all__ = ["read"]


def read(text: str, *, loose_division: bool = False) -> list[Node]:
    """The items of an answer, in order; `(1, 2)` is one item, `1, 2` are two.

    Args:
        loose_division: read `1/2x` as `(1/2)x` rather than `1/(2x)`.

    Raises:
        NotReadError: not an answer this reader knows.
    """
    tokens = tokenize(clean(text))
    if not tokens:
        raise NotReadError("nothing to read")
    return Reader(tokens, loose_division).items()
