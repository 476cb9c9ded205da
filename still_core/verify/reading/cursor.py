"""A place in the tokens of an answer: looking ahead, taking, and the depth of nesting."""

from __future__ import annotations

from still_core.verify.nodes import NotReadError
from still_core.verify.reading.tokens import Token

MAX_DEPTH = 60
"""Deepest nesting the reader follows; its own recursion, hence below Python's limit."""
SEPARATORS = frozenset({",", ";", "\\\\", "\\&", "&"})
"""Signs between the items of a list."""


class Cursor:
    """The tokens and where the reader stands in them."""

    def __init__(self, tokens: list[Token], loose_division: bool) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.calls = 0
        """How many function arguments are open: there degrees are angles, not units."""
        self.loose = loose_division
        self.program = any(token.value in ("*", "**") for token in tokens) and not any(
            token.kind == "cmd" for token in tokens
        )
        """Whether the text is spelt as programs do: there `E` is Euler's number."""

    def peek(self, ahead: int = 0) -> Token:
        """The token `ahead` of the present one; an `end` token past the last."""
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else Token("end", "", True)

    def take(self) -> Token:
        """The present token, which is then left behind."""
        token = self.peek()
        self.at += 1
        return token

    def is_op(self, *values: str) -> bool:
        """Whether one of these signs stands here."""
        token = self.peek()
        return token.kind == "op" and token.value in values

    def is_cmd(self, *values: str) -> bool:
        """Whether one of these commands stands here."""
        token = self.peek()
        return token.kind == "cmd" and token.value in values

    def expect(self, value: str) -> None:
        """Take this sign, which must stand here."""
        if not self.is_op(value):
            raise NotReadError(f"expected {value}")
        self.at += 1

    def deeper(self) -> None:
        """Count one more level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotReadError("nested too deeply")

    def group_text(self) -> str:
        """The raw text of a subscript, blanks and braces removed."""
        token = self.take()
        if token.kind == "end":
            raise NotReadError("an empty subscript")
        if token != Token("op", "{", token.spaced):
            return token.value
        pieces, depth = [], 1
        while depth:
            token = self.take()
            if token.kind == "end":
                raise NotReadError("an unclosed subscript")
            depth += {"{": 1, "}": -1}.get(token.value, 0) if token.kind == "op" else 0
            if token.kind != "op" or token.value not in "{}":
                pieces.append(token.value)
        return "".join(pieces)
