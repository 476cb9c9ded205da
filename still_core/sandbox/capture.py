"""Keeping a bounded part of an unbounded stream."""

from __future__ import annotations

import os

CHUNK = 65_536
MAX_CHUNKS = 64
"""Read at one go before others have their turn: 4 MiB."""


class Capture:
    """Reads a pipe without blocking; keeps the first and, if asked, the last bytes."""

    def __init__(self, descriptor: int, *, limit: int) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self.begin(keep_tail=False)

    def begin(self, *, keep_tail: bool) -> None:
        """Forget what was read. With `keep_tail`, half of the limit is for the end."""
        self._tail_limit = self._limit // 2 if keep_tail else 0
        self._head_limit = self._limit - self._tail_limit
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def drain(self) -> bool:
        """Read what is there; False at the end of the stream."""
        for _ in range(MAX_CHUNKS):
            try:
                chunk = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._take(chunk)
        return True

    def _take(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if self._tail_limit and chunk:
            self._tail += chunk
            del self._tail[: -self._tail_limit]

    @property
    def truncated(self) -> bool:
        """Whether bytes were dropped."""
        return self.total > len(self._head) + len(self._tail)

    def text(self) -> str:
        """What was kept; a line in the middle says how much was not."""
        head = self._head.decode("utf-8", "replace")
        if not self.truncated or not self._tail_limit:
            return head + self._tail.decode("utf-8", "replace")
        dropped = self.total - len(self._head) - len(self._tail)
        return f"{head}\n[{dropped} bytes left out]\n{self._tail.decode('utf-8', 'replace')}"
