"""Rows of a JSON document found without parsing the whole: bounded memory for files of any size.

bytes in chunks -> structural marks -> (line, text) of each element of the array that holds the rows
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

ROW_KEYS = ("example", "examples", "data", "rows", "questions", "problems", "instances", "items")
"""Keys under which a JSON object holds its rows (Gaokao uses `example`)."""
CHUNK_BYTES = 1 << 20
CUT_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
"""What reading a cut or damaged compressed file raises."""
_MAX_KEY_BYTES = 64
_OUTSIDE = re.compile(rb'["{}\[\],]')
_INSIDE = re.compile(rb'["\\\n]')


class Element(NamedTuple):
    """One row of a document."""

    line: int
    """1-based line on which it starts."""
    text: bytes | None
    """Its JSON text; None where it is longer than the bound."""
    complete: bool
    """False where the file ends inside it."""


def elements(stream: IO[bytes], max_bytes: int) -> Iterator[Element]:
    """Every row of a JSON document.

    Rows are the elements of the root array, or of the arrays under `ROW_KEYS` of a root object. A
    raw line break ends a string (JSON allows none), and where the next line opens a new object the
    broken row ends too, so that one lost quote does not cost the rest of the file.

    Args:
        stream: the document's bytes.
        max_bytes: longest row whose text is kept.
    """
    scanner = _Scanner(max_bytes)
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except CUT_ERRORS:
            break
        if not chunk:
            break
        yield from scanner.feed(chunk)
    yield from scanner.finish()


class _Scanner:
    """The state of `elements` between two chunks."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._root = b""
        self._depth = 0
        self._in_string = False
        self._skip = 0
        """Bytes of the next chunk that an escape at the end of this one covers."""
        self._key: bytearray | None = None
        """The latest string directly inside a root object."""
        self._row_depth = 0
        """Depth of the array whose elements are rows; 0 outside of it."""
        self._line = 1
        self._row_line = 1
        self._text = bytearray()
        self._length = 0
        self._blank = True
        self._broken_at = -1
        """Length of the present row at a line break that cut a string; -1 in sound rows."""
        self._chunk = b""
        self._taken = 0

    def feed(self, chunk: bytes) -> Iterator[Element]:
        """The rows that end in this chunk."""
        self._chunk, self._taken = chunk, 0
        position = self._skip
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(chunk, position)
            if found is None:
                break
            start, mark, position = found.start(), found.group(), found.end()
            if self._in_string:
                position = self._in_text(mark, position)
            elif mark == b'"':
                self._take(start)
                self._broken_at = -1
                self._in_string = True
                self._key = bytearray() if self._depth == 1 and self._root == b"{" else self._key
                if self._row_depth == 0:
                    self._skip_to(position)
            else:
                yield from self._structure(mark, start, position)
        self._take(len(chunk))
        self._skip = max(0, position - len(chunk))

    def finish(self) -> Iterator[Element]:
        """The row that the end of the file cut, if any."""
        if self._row_depth and not self._blank:
            yield self._element(complete=False)

    def _in_text(self, mark: bytes, position: int) -> int:
        """A mark inside a string; returns where to go on."""
        if mark == b"\\":
            return position + 1
        self._take(position - 1)
        self._in_string = False
        if mark == b"\n":
            self._take(position)
            self._broken_at = self._length
        return position

    def _structure(self, mark: bytes, start: int, end: int) -> Iterator[Element]:
        """A brace, bracket or comma outside of strings."""
        self._take(start)
        if self._broken_at >= 0 and self._row_depth:
            gap = bytes(self._text[self._broken_at :]) if self._length <= self._max_bytes else b"x"
            self._broken_at = -1
            if mark in b"{]" and not gap.strip():
                yield self._element(complete=True)
                self._begin_row()
                self._depth = self._row_depth
        at_row_depth = self._row_depth and self._depth == self._row_depth
        if at_row_depth and mark in b",]}":
            if not self._blank:
                yield self._element(complete=True)
            self._skip_to(end)
            self._begin_row()
            if mark != b",":
                self._row_depth, self._depth = 0, self._depth - 1
        elif mark in b"{[":
            self._root = self._root or mark
            self._depth += 1
            if self._opens_rows(mark):
                self._row_depth = self._depth
                self._skip_to(end)
                self._begin_row()
        elif mark in b"}]":
            self._depth = max(0, self._depth - 1)

    def _opens_rows(self, mark: bytes) -> bool:
        if self._row_depth or mark != b"[":
            return False
        if self._root == b"[":
            return self._depth == 1
        key = bytes(self._key or b"").decode("utf-8", "replace")
        return self._depth == 2 and key in ROW_KEYS

    def _take(self, end: int) -> None:
        """Account for the chunk's bytes up to `end`: lines, the present row, a key being read."""
        piece = self._chunk[self._taken : end]
        if end <= self._taken:
            return
        if self._row_depth:
            if self._blank and (head := piece.lstrip()):
                self._blank = False
                self._row_line = self._line + piece[: len(piece) - len(head)].count(b"\n")
            self._length += len(piece)
            if self._length <= self._max_bytes:
                self._text += piece
        elif self._in_string and self._key is not None and len(self._key) < _MAX_KEY_BYTES:
            self._key += piece[:_MAX_KEY_BYTES]
        self._skip_to(end)

    def _skip_to(self, end: int) -> None:
        self._line += self._chunk.count(b"\n", self._taken, end)
        self._taken = end

    def _begin_row(self) -> None:
        self._text, self._length, self._blank, self._broken_at = bytearray(), 0, True, -1

    def _element(self, *, complete: bool) -> Element:
        text = bytes(self._text).strip() if self._length <= self._max_bytes else None
        return Element(self._row_line, text, complete)
