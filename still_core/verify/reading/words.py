"""Words of a language, and the unit that follows a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from still_core.verify.nodes import CONSTANTS, CONSTRUCTORS, FUNCTIONS, GREEK, Node
from still_core.verify.reading.cursor import SEPARATORS
from still_core.verify.reading.symbols import NAME
from still_core.verify.reading.tokens import Token
from still_core.verify.units import canonical_unit, is_unit_word

if TYPE_CHECKING:
    from still_core.verify.reading.reader import Reader


def read_words(reader: Reader) -> Node | None:
    """Plain words up to the next separator or relation, None where mathematics stands."""
    taken: list[str] = []
    ahead = 0
    while reader.peek(ahead).kind in ("word", "text"):
        if reader.peek(ahead).value in ("and", "or"):
            break
        taken.append(reader.peek(ahead).value)
        ahead += 1
    if not taken or reader.peek(ahead).kind not in ("end", "op", "word", "text"):
        return None
    follows = reader.peek(ahead)
    if follows.kind == "op" and follows.value not in {*SEPARATORS, "=", ".", ")", "]", "}"}:
        return None
    if all(reader.peek(index).kind == "word" for index in range(ahead)) and not _is_prose(taken):
        return None
    reader.at += ahead
    return Node("words", name=" ".join(taken))


def read_unit(reader: Reader) -> str:
    """Canonical unit that stands here, "" where none does."""
    start = reader.at
    while True:
        token = reader.peek()
        known = token.kind == "text" or (token.kind == "word" and follows_number(token))
        if (known and token.value not in ("and", "or")) or reader.is_op("\\%", "%", "\\$", "$"):
            reader.at += 1
        elif reader.at > start and reader.is_op("^") and reader.peek(1).kind in ("num", "op"):
            reader.at += 1
            reader.group_text()
        elif reader.at > start and reader.is_op("/") and reader.peek(1).kind in ("word", "text"):
            reader.at += 2
        elif reader.at > start and reader.is_op("."):
            reader.at += 1
        else:
            break
    raw = " ".join(token.value for token in reader.tokens[start : reader.at])
    return canonical_unit(raw.replace("\\$", "dollar").replace("$", "dollar"))


def _is_prose(words: list[str]) -> bool:
    """Whether plain letters are words rather than a product of variables."""
    if len(words) > 1:
        return any(len(word) > 2 and word not in FUNCTIONS for word in words)
    word = words[0]
    if word in FUNCTIONS or word in GREEK or word in CONSTANTS or word in CONSTRUCTORS:
        return False
    if word.lower() in ("no", "on"):
        return True
    if len(word) < 3 or set(word) <= set("abcxyz") or not re.search(r"[aeiouyAEIOUY]", word):
        return False
    return NAME.match(word) is None or len(word) > 6


def follows_number(token: Token) -> bool:
    """Whether a plain word that follows a value is a unit or a noun rather than variables."""
    word = token.value
    if is_unit_word(word) and word not in ("in",):
        return True
    return len(word) >= 4 and NAME.search(word) is None and re.search("[aeiou]", word) is not None
