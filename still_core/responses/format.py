r"""The thought/solution format of STILL-2 (section 2.2.1): one strict parser, one renderer.

text -> classify -> Response | Defect        Response -> render_response -> text

The canonical text, byte for byte::

    <|begin_of_thought|>\n{thought}\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{solution}\n<|end_of_solution|>

Steps of the thought are separated by a blank line. The reader is strict but for one newline:
public data writes text right after ``<|begin_of_solution|>``, the paper begins a line there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from still_core.errors import ResponseFormatError, explain
from still_core.responses.response import Response

BEGIN_THOUGHT = "<|begin_of_thought|>"
END_THOUGHT = "<|end_of_thought|>"
BEGIN_SOLUTION = "<|begin_of_solution|>"
END_SOLUTION = "<|end_of_solution|>"
TOKENS = (BEGIN_THOUGHT, END_THOUGHT, BEGIN_SOLUTION, END_SOLUTION)
"""The four tokens in the order in which a response holds them."""

_TOKEN = re.compile("|".join(re.escape(token) for token in TOKENS))
_BLANK_LINE = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


class DefectKind(StrEnum):
    """What is wrong with a text that should be a response."""

    EMPTY = "empty"
    NO_TOKENS = "no_tokens"
    """None of the four tokens: a direct answer, or another style."""
    TRUNCATED_THOUGHT = "truncated_thought"
    """The text ends inside the thought."""
    TRUNCATED_BEFORE_SOLUTION = "truncated_before_solution"
    """The thought is closed and nothing follows."""
    TRUNCATED_SOLUTION = "truncated_solution"
    """The text ends inside the solution."""
    MISSING_TOKEN = "missing_token"
    """A token is absent although a later one is there."""
    DOUBLED_TOKEN = "doubled_token"
    MISORDERED_TOKENS = "misordered_tokens"
    TEXT_BEFORE = "text_before"
    TEXT_BETWEEN = "text_between"
    TEXT_AFTER = "text_after"
    SPACING = "spacing"
    """Newlines around the tokens differ from the canonical text."""
    EMPTY_THOUGHT = "empty_thought"
    EMPTY_SOLUTION = "empty_solution"

    def is_truncated(self) -> bool:
        """Whether the text is the beginning of a response, cut short."""
        return self.value.startswith("truncated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """Why a text is no response."""

    kind: DefectKind
    detail: str
    position: int
    """Character offset at which the defect shows, >= 0."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail} (at character {self.position})"


class _Parts(NamedTuple):
    before: str
    thought: str
    between: str
    solution: str
    after: str


def render_response(response: Response) -> str:
    """The canonical text of a response; `classify` gives the same response back.

    Raises:
        ResponseFormatError: a part is blank, or holds one of the four tokens.
    """
    for name, part in (("thought", response.thought), ("solution", response.solution)):
        if not part.strip():
            raise ResponseFormatError(explain(f"a response without a {name} can not be rendered"))
        if inner := _TOKEN.search(part):
            raise ResponseFormatError(
                explain(
                    f"the {name} holds a format token",
                    got=inner.group(),
                    remedy="unify the response before rendering it",
                )
            )
    return (
        f"{BEGIN_THOUGHT}\n{response.thought}\n{END_THOUGHT}\n\n"
        f"{BEGIN_SOLUTION}\n{response.solution}\n{END_SOLUTION}"
    )


def classify(text: str, *, exact_spacing: bool = True) -> Response | Defect:
    """Read a response, or name its first defect.

    Order of checks: empty, tokens (doubled, misordered, truncated, missing), text outside, spacing,
    empty parts. Truncation comes before text outside: a cut response is not also a malformed one.

    Args:
        text: what the model wrote, end-of-sequence token removed.
        exact_spacing: False ignores blank space around the tokens and strips it from both parts;
            used where other people's files are read, never on rollouts.
    """
    if not text.strip():
        return Defect(kind=DefectKind.EMPTY, detail="no text", position=0)
    found = list(_TOKEN.finditer(text))
    defect = _token_defect(text, found)
    if defect is not None:
        return defect
    ends = [m.end() for m in found]
    starts = [m.start() for m in found]
    parts = _Parts(
        before=text[: starts[0]],
        thought=text[ends[0] : starts[1]],
        between=text[ends[1] : starts[2]],
        solution=text[ends[2] : starts[3]],
        after=text[ends[3] :],
    )
    return _outside_defect(parts, starts, ends) or _read_parts(parts, starts, ends, exact_spacing)


def split_steps(thought: str) -> list[str]:
    """The steps of a thought: its parts between blank lines, blank ones left out."""
    return [step for step in _BLANK_LINE.split(thought.strip("\n")) if step.strip()]


def has_format_token(text: str) -> bool:
    """Whether any of the four tokens stands in the text."""
    return _TOKEN.search(text) is not None


def _token_defect(text: str, found: list[re.Match[str]]) -> Defect | None:
    names = [m.group() for m in found]
    if not names:
        if _is_cut_token(text.strip(), BEGIN_THOUGHT):
            return Defect(
                kind=DefectKind.TRUNCATED_THOUGHT, detail="cut inside the first token", position=0
            )
        return Defect(kind=DefectKind.NO_TOKENS, detail="none of the four tokens", position=0)
    for match in found:
        if names.count(match.group()) > 1:
            second = [m.start() for m in found if m.group() == match.group()][1]
            return Defect(
                kind=DefectKind.DOUBLED_TOKEN,
                detail=f"{match.group()} stands {names.count(match.group())} times",
                position=second,
            )
    order = [TOKENS.index(name) for name in names]
    for previous, here, match in zip(order, order[1:], found[1:], strict=False):
        if here < previous:
            return Defect(
                kind=DefectKind.MISORDERED_TOKENS,
                detail=f"{match.group()} after {TOKENS[previous]}",
                position=match.start(),
            )
    if order == [0, 1, 2, 3]:
        return None
    return _missing_defect(text, found, order)


def _missing_defect(text: str, found: list[re.Match[str]], order: list[int]) -> Defect:
    """A gapless beginning is a cut response; any other gap is a missing token."""
    tail = text[found[-1].end() :]
    if order == [0]:
        return Defect(
            kind=DefectKind.TRUNCATED_THOUGHT,
            detail=f"no {END_THOUGHT}",
            position=len(text),
        )
    if order == [0, 1] and (not tail.strip() or _is_cut_token(tail.strip(), BEGIN_SOLUTION)):
        return Defect(
            kind=DefectKind.TRUNCATED_BEFORE_SOLUTION,
            detail=f"no {BEGIN_SOLUTION}",
            position=len(text),
        )
    if order == [0, 1, 2]:
        return Defect(
            kind=DefectKind.TRUNCATED_SOLUTION, detail=f"no {END_SOLUTION}", position=len(text)
        )
    missing = next(i for i in range(4) if i not in order)
    after = [m.start() for m in found if TOKENS.index(m.group()) > missing]
    return Defect(
        kind=DefectKind.MISSING_TOKEN,
        detail=f"no {TOKENS[missing]}",
        position=after[0] if after else found[-1].end(),
    )


def _is_cut_token(text: str, token: str) -> bool:
    """Whether the whole text is a proper, non-empty beginning of `token`."""
    return 0 < len(text) < len(token) and token.startswith(text)


def _outside_defect(parts: _Parts, starts: list[int], ends: list[int]) -> Defect | None:
    outside = (
        (DefectKind.TEXT_BEFORE, parts.before, 0, "before the thought"),
        (DefectKind.TEXT_BETWEEN, parts.between, ends[1], "between thought and solution"),
        (DefectKind.TEXT_AFTER, parts.after, ends[3], "after the solution"),
    )
    for kind, text, position, where in outside:
        if text.strip():
            return Defect(
                kind=kind, detail=f"{len(text.strip())} characters {where}", position=position
            )
    blank_thought, blank_solution = not parts.thought.strip(), not parts.solution.strip()
    if blank_thought or blank_solution:
        return Defect(
            kind=DefectKind.EMPTY_THOUGHT if blank_thought else DefectKind.EMPTY_SOLUTION,
            detail="nothing between its tokens",
            position=ends[0] if blank_thought else ends[2],
        )
    return None


def _read_parts(
    parts: _Parts, starts: list[int], ends: list[int], exact_spacing: bool
) -> Response | Defect:
    if not exact_spacing:
        return Response(thought=parts.thought.strip(), solution=parts.solution.strip())
    checks = (
        (parts.before == "", 0, f"blank space before {BEGIN_THOUGHT}"),
        (parts.thought.startswith("\n"), ends[0], f"no newline after {BEGIN_THOUGHT}"),
        (parts.thought.endswith("\n"), starts[1], f"no newline before {END_THOUGHT}"),
        (parts.between == "\n\n", ends[1], "not exactly one blank line between the parts"),
        (parts.solution.endswith("\n"), starts[3], f"no newline before {END_SOLUTION}"),
        (parts.after == "", ends[3], f"blank space after {END_SOLUTION}"),
    )
    for holds, position, detail in checks:
        if not holds:
            return Defect(kind=DefectKind.SPACING, detail=detail, position=position)
    return Response(thought=parts.thought[1:-1], solution=parts.solution[:-1].removeprefix("\n"))
