r"""Format unification: responses of every teacher's habit -> thought and solution (STILL-2, 2.2.1).

RawResponse -> detect style -> split -> tidy steps -> Unified(response | needs_solution | defect)

Styles: STILL's own; OpenThoughts (the same tokens, loose spacing); R1 (``<think>`` or a reasoning
field, then the solution; files often leave out the opening tag, as the prompt holds it); QwQ (a
thought that ends in the answer and no solution: a fine-tuned model completes it, see `complete`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from still_core.errors import ConfigError, explain
from still_core.responses.ending import ends_abruptly, ends_in_answer, strip_end_mark
from still_core.responses.format import (
    END_SOLUTION,
    TOKENS,
    Defect,
    DefectKind,
    classify,
    has_format_token,
)
from still_core.responses.response import Response

THINK, END_THINK = "<think>", "</think>"
_OTHER_THINK = re.compile(r"<(/?)(?:thinking|thought|reasoning|Think|THINK)>")
"""Tags that other models close their thoughts with; read where no tag of R1's stands."""
_MARKS = "\ufeff\u200b\u2060"
"""Invisible marks that files begin with: byte-order mark, zero-width space, word joiner."""
_ANSWER_TAGS = re.compile(r"</?answer>")
_CHAT_HEADER = re.compile(
    "<\uff5cAssistant\uff5c>|<\\|Assistant\\|>|<\\|im_start\\|>assistant\\n"
    "|<\\|start_header_id\\|>assistant<\\|end_header_id\\|>\\n*"
)
_FENCE = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n)+")


class Style(StrEnum):
    """A teacher's habit."""

    AUTO = "auto"
    STILL = "still"
    OPEN_THOUGHTS = "open_thoughts"
    R1 = "r1"
    QWQ = "qwq"


class Raw(Protocol):
    """What `unify` reads of a raw response (`still_core.problems.raw.RawResponse` fits).

    A `finish_reason` that it has besides (`stop`, `length`, or empty) is read too.
    """

    @property
    def text(self) -> str:
        """The response, or the solution alone where `reasoning` holds the thought."""

    @property
    def reasoning(self) -> str:
        """The thought, where it stands in a field of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unified:
    """One response, unified as far as it goes: exactly one of three states.

    `response` is there; or `needs_solution` and `thought` holds what to complete; or `defect` says
    what is wrong.
    """

    style: Style
    response: Response | None = None
    thought: str = ""
    """The thought, where there is one, whole."""
    needs_solution: bool = False
    defect: Defect | None = None


class _Split(NamedTuple):
    thought: str
    solution: str


def unify(raw: Raw | str, style: Style | str = Style.AUTO, *, finish_reason: str = "") -> Unified:
    """Split one raw response into thought and solution.

    Args:
        raw: the response; a string is the text alone.
        style: the teacher's habit; `auto` tells it from the text. A cut R1 response whose opening
            tag is in the prompt looks like QwQ's: name the style, or use `unify_all`.
        finish_reason: `length` marks the response as cut, `stop` as finished; by default what the
            response says of itself; where both are empty the ending of the text decides.

    Raises:
        ConfigError: there is no such style.
    """
    try:
        asked = Style(style)
    except ValueError:
        known = ", ".join(Style)
        raise ConfigError(explain("unknown response style", got=style, expected=known)) from None
    text, reasoning = (raw, "") if isinstance(raw, str) else (raw.text, raw.reasoning)
    text, ended = strip_end_mark(_strip_chat_header(_plain(text)))
    told = finish_reason or str(getattr(raw, "finish_reason", ""))
    finish = told or ("stop" if ended else "")
    if reasoning.strip():
        return _from_fields(_plain(reasoning), text, finish)
    if not text.strip():
        return Unified(style=asked, defect=_defect(DefectKind.EMPTY, "no text"))
    found = detect_style(text) if asked is Style.AUTO else asked
    if found in (Style.STILL, Style.OPEN_THOUGHTS):
        return _from_tokens(text, finish)
    if found is Style.R1:
        return _from_think(text, finish)
    return _from_stream(text, finish)


def unify_all(
    raws: Sequence[Raw], style: Style | str = Style.AUTO, *, sources: Sequence[str] = ()
) -> list[Unified]:
    """Unify many responses, telling the habit per source.

    A source in which any response closes ``</think>`` is R1 style as a whole: its responses without
    tags were cut inside the thought. In a source with thoughts in a field of their own, a response
    without one is no QwQ thought but a solution alone. A row's result depends on the set of rows,
    not on their order.

    Args:
        raws: the responses.
        style: as in `unify`.
        sources: the file or teacher of each response, e.g. `f"{raw.source_file} {raw.teacher}"`; by
            default all are one source.
    """
    names = list(sources) or [""] * len(raws)
    if Style(style) is not Style.AUTO:
        return [unify(raw, style) for raw in raws]
    closes: dict[str, bool] = defaultdict(bool)
    apart: dict[str, bool] = defaultdict(bool)
    for raw, name in zip(raws, names, strict=True):
        closes[name] |= END_THINK in _plain(raw.text)
        apart[name] |= bool(raw.reasoning.strip())
    unified = []
    for raw, name in zip(raws, names, strict=True):
        tagless = detect_style(_plain(raw.text)) is Style.QWQ and not raw.reasoning.strip()
        if tagless and raw.text.strip() and apart[name] and not closes[name]:
            defect = _defect(DefectKind.EMPTY_THOUGHT, "no thought in its field")
            unified.append(Unified(style=Style.R1, defect=defect))
        else:
            unified.append(unify(raw, Style.R1 if tagless and closes[name] else Style.AUTO))
    return unified


def detect_style(text: str) -> Style:
    """The habit that the text shows: the four tokens, think tags, or neither (QwQ)."""
    if has_format_token(text):
        return Style.STILL if _read_exactly(text) else Style.OPEN_THOUGHTS
    if THINK in text or END_THINK in text:
        return Style.R1
    return Style.QWQ


def complete(
    unified: Unified, solution_text: str, *, closing: str = END_SOLUTION, truncated: bool = False
) -> Unified:
    """Join a thought that needs a solution with what a fine-tuned model wrote for it.

    Args:
        unified: a response with `needs_solution`.
        solution_text: the completion of `prompts.completion_request`; the mark that closes it is
            dropped.
        closing: that mark.
        truncated: the completion was cut by the token limit.
    """
    solution, closed, rest = strip_end_mark(solution_text)[0].partition(closing)
    if truncated or not closed:
        defect = _defect(DefectKind.TRUNCATED_SOLUTION, f"completion without {closing}")
        return replace(unified, needs_solution=False, defect=defect)
    if rest.strip():
        defect = _defect(DefectKind.TEXT_AFTER, f"{len(rest.strip())} characters after completion")
        return replace(unified, needs_solution=False, defect=defect)
    return _from_parts(unified.style, _Split(unified.thought, solution), "stop")


def tidy_steps(thought: str) -> str:
    """The thought with its steps separated by exactly one blank line; code blocks are left alone.

    A thought without any blank line takes each line as a step.
    """
    body = thought.strip()
    if "```" not in body and "\n" in body and not _BLANK_LINES.search(body):
        return "\n\n".join(line.rstrip() for line in body.split("\n"))
    pieces = _FENCE.split(body)
    return "".join(
        piece if piece.startswith("```") else _BLANK_LINES.sub("\n\n", piece) for piece in pieces
    )


def _plain(text: str) -> str:
    """The text with plain line ends, without a byte-order mark, other think tags as R1's."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip(_MARKS)
    if THINK in text or END_THINK in text or has_format_token(text):
        return text
    return _OTHER_THINK.sub(r"<\1think>", text)


def _strip_chat_header(text: str) -> str:
    """Drop a rendered prompt that some files keep in front of the response."""
    header = _CHAT_HEADER.search(text)
    return text[header.end() :] if header else text


def _read_exactly(text: str) -> Response | None:
    """The response of a text in STILL's own form, None where spacing or format differs."""
    found = classify(text)
    if isinstance(found, Defect):
        return None
    tight = all(part == part.strip() for part in (found.thought, found.solution))
    return found if tight else None


def _from_tokens(text: str, finish: str) -> Unified:
    if exact := _read_exactly(text):
        return Unified(style=Style.STILL, response=exact, thought=exact.thought)
    style = Style.OPEN_THOUGHTS
    result = classify(text, exact_spacing=False)
    if isinstance(result, Response):
        return _from_parts(style, _Split(result.thought, result.solution), finish or "stop")
    if result.kind is DefectKind.TRUNCATED_BEFORE_SOLUTION and finish == "stop":
        body = text.split(TOKENS[0], 1)[1].split(TOKENS[1], 1)[0]
        return _from_parts(style, _Split(body, ""), finish)
    return Unified(style=style, defect=result)


def _from_think(text: str, finish: str) -> Unified:
    style = Style.R1
    opened, closed = text.count(THINK), text.count(END_THINK)
    if opened > 1 or closed > 1:
        tag = THINK if opened > 1 else END_THINK
        return Unified(style=style, defect=_defect(DefectKind.DOUBLED_TOKEN, f"{tag} repeats"))
    if opened and closed and text.index(END_THINK) < text.index(THINK):
        detail = f"{END_THINK} before {THINK}"
        return Unified(style=style, defect=_defect(DefectKind.MISORDERED_TOKENS, detail))
    before, _, body = text.partition(THINK) if opened else ("", "", text)
    if not closed:
        return Unified(
            style=style, defect=_defect(DefectKind.TRUNCATED_THOUGHT, f"no {END_THINK}", len(text))
        )
    if before.strip():
        detail = f"{len(before.strip())} characters before {THINK}"
        return Unified(style=style, defect=_defect(DefectKind.TEXT_BEFORE, detail))
    thought, _, solution = body.partition(END_THINK)
    return _from_parts(style, _Split(thought, _ANSWER_TAGS.sub("", solution)), finish)


def _from_fields(reasoning: str, text: str, finish: str) -> Unified:
    """A thought in a field of its own; the text is the solution, or repeats the thought in tags."""
    if END_THINK in text:
        return _from_think(text, finish)
    thought = reasoning.strip().removeprefix(THINK)
    closed = thought.endswith(END_THINK)
    thought = thought.removesuffix(END_THINK)
    if not text.strip() and finish == "length" and not closed:
        defect = _defect(DefectKind.TRUNCATED_THOUGHT, "cut before the solution", len(thought))
        return Unified(style=Style.R1, defect=defect)
    return _from_parts(Style.R1, _Split(thought, _ANSWER_TAGS.sub("", text)), finish)


def _from_stream(text: str, finish: str) -> Unified:
    """QwQ: all of it is thought; finished when it got as far as its answer."""
    if has_format_token(text) or THINK in text or END_THINK in text:
        defect = _defect(DefectKind.DOUBLED_TOKEN, "format tokens inside a stream of thought")
        return Unified(style=Style.QWQ, defect=defect)
    cut = finish == "length" or (finish != "stop" and not ends_in_answer(text))
    if cut:
        defect = _defect(DefectKind.TRUNCATED_THOUGHT, "ends before its answer", len(text))
        return Unified(style=Style.QWQ, defect=defect)
    return Unified(style=Style.QWQ, thought=tidy_steps(text), needs_solution=True)


def _from_parts(style: Style, parts: _Split, finish: str) -> Unified:
    thought, solution = tidy_steps(parts.thought), parts.solution.strip()
    for part in (thought, solution):
        if has_format_token(part) or THINK in part or END_THINK in part:
            defect = _defect(DefectKind.DOUBLED_TOKEN, "format tokens inside a part")
            return Unified(style=style, defect=defect)
    if not thought:
        return Unified(style=style, defect=_defect(DefectKind.EMPTY_THOUGHT, "no thought"))
    if not solution:
        if finish == "length" or (finish != "stop" and ends_abruptly(thought)):
            defect = _defect(DefectKind.TRUNCATED_THOUGHT, "ends inside a sentence", len(thought))
            return Unified(style=style, defect=defect)
        return Unified(style=style, thought=thought, needs_solution=True)
    if finish == "length" or (finish != "stop" and _is_cut(thought, solution)):
        defect = _defect(DefectKind.TRUNCATED_SOLUTION, "ends before its end", len(solution))
        return Unified(style=style, thought=thought, defect=defect)
    return Unified(
        style=style, thought=thought, response=Response(thought=thought, solution=solution)
    )


def _is_cut(thought: str, solution: str) -> bool:
    """A solution that stops inside a sentence, or never boxes the answer that its thought boxed."""
    return ends_abruptly(solution) or ("\\boxed{" in thought and "\\boxed{" not in solution)


def _defect(kind: DefectKind, detail: str, position: int = 0) -> Defect:
    return Defect(kind=kind, detail=detail, position=position)
