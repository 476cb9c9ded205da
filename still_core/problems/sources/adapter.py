"""What an adapter is: a function from one raw row to a draft of a problem.

row -> ProblemDraft (no id yet, with any responses the row holds) | FilteredRow | MalformedRow
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from still_core.errors import ConfigError, DataError, explain
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.recipe import SourceSpec


class FilteredRow(DataError):
    """A well-formed row that this source leaves out; args are (reason code,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A response that a row holds beside its problem."""

    text: str
    reasoning: str = ""
    teacher: str = ""
    finish_reason: str = ""
    """`stop` or `length`; empty where the row does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemDraft:
    """A problem as one row gives it, before it has an id."""

    statement: str
    gold: str
    kind: AnswerKind = AnswerKind.MATH
    domain: str = "math"
    bucket: Bucket = Bucket.HARD_MATH
    level: float | None = None
    choices: tuple[str, ...] = ()
    solution: str = ""
    responses: tuple[Written, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What an adapter may know beside the row."""

    spec: SourceSpec
    file: str

    @property
    def stem(self) -> str:
        """The file's name in lower case, without folders."""
        return PurePosixPath(self.file).name.lower()

    def keeps(self, value: str, default: tuple[str, ...]) -> bool:
        """Whether a subset is among the spec's subsets, else among the adapter's own."""
        wanted = self.spec.subsets or default
        return not wanted or value.lower() in {item.lower() for item in wanted}


Read = Callable[[Any, Context], ProblemDraft]


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One public source: how its rows are read and under which licence they stand."""

    name: str
    read: Read
    licence: str = ""
    """As the publisher states it; empty where nothing is stated."""


ADAPTERS: dict[str, Adapter] = {}
"""All adapters by name; filled when `still_core.problems.sources` is imported."""


def register(name: str, *, licence: str = "") -> Callable[[Read], Read]:
    """Register a reading function under a name."""

    def add(read: Read) -> Read:
        ADAPTERS[name] = Adapter(name=name, read=read, licence=licence)
        return read

    return add


def adapter(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ADAPTERS[name]
    except KeyError:
        raise ConfigError(
            explain("unknown source adapter", got=name, expected=", ".join(sorted(ADAPTERS)))
        ) from None
