r"""The think/answer tags of STILL-3's Zero runs: strict check, rendering, and the way back.

text -> classify_tagged -> Response | Defect        Response -> render_tagged -> text

Checks of STILL-3's format reward (PAPERS 2.4): starts with ``<think>``, ends with ``</answer>``,
each tag exactly once and in order, both parts non-empty, only blank space between the parts.
"""

from __future__ import annotations

import re

from still_core.errors import ResponseFormatError, explain
from still_core.responses.format import Defect, DefectKind
from still_core.responses.response import Response

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""In the order in which a response holds them."""
_TAG = re.compile("|".join(re.escape(tag) for tag in TAGS))


def render_tagged(response: Response) -> str:
    """The response as ``<think>...</think><answer>...</answer>`` with a newline at every tag.

    Raises:
        ResponseFormatError: a part is blank or holds a tag.
    """
    for name, part in (("thought", response.thought), ("solution", response.solution)):
        if not part.strip() or _TAG.search(part):
            raise ResponseFormatError(
                explain(f"the {name} is blank or holds a tag", got=part[:80], expected="plain text")
            )
    return f"<think>\n{response.thought}\n</think>\n<answer>\n{response.solution}\n</answer>"


def classify_tagged(text: str, *, opened: bool = False) -> Response | Defect:
    """Read a tagged response, or name its first defect.

    Args:
        text: the completion, end-of-sequence token removed.
        opened: the prompt already holds the first ``<think>`` (STILL-3's prompts do).
    """
    whole = f"<think>{text}" if opened else text
    if not text.strip():
        return Defect(kind=DefectKind.EMPTY, detail="no text", position=0)
    found = list(_TAG.finditer(whole))
    shift = len("<think>") if opened else 0
    names = [m.group() for m in found]
    for match in found:
        if names.count(match.group()) > 1:
            return _defect(
                DefectKind.DOUBLED_TOKEN,
                f"{match.group()} stands {names.count(match.group())} times",
                match.start() - shift,
            )
    order = [TAGS.index(name) for name in names]
    if order != sorted(order):
        return _defect(DefectKind.MISORDERED_TOKENS, " ".join(names), 0)
    if order != [0, 1, 2, 3]:
        return _incomplete(order, len(text))
    return _parts(whole, found, shift)


def _incomplete(order: list[int], size: int) -> Defect:
    cut = {
        (0,): DefectKind.TRUNCATED_THOUGHT,
        (0, 1): DefectKind.TRUNCATED_BEFORE_SOLUTION,
        (0, 1, 2): DefectKind.TRUNCATED_SOLUTION,
    }
    kind = DefectKind.NO_TOKENS if not order else cut.get(tuple(order), DefectKind.MISSING_TOKEN)
    missing = [tag for i, tag in enumerate(TAGS) if i not in order]
    return _defect(kind, f"no {missing[0]}", size)


def _parts(whole: str, found: list[re.Match[str]], shift: int) -> Response | Defect:
    begin_think, end_think, begin_answer, end_answer = found
    outside = (
        (DefectKind.TEXT_BEFORE, whole[: begin_think.start()], 0),
        (DefectKind.TEXT_BETWEEN, whole[end_think.end() : begin_answer.start()], end_think.end()),
        (DefectKind.TEXT_AFTER, whole[end_answer.end() :], end_answer.end()),
    )
    for kind, text, position in outside:
        if text.strip():
            return _defect(kind, f"{len(text.strip())} characters", position - shift)
    thought = whole[begin_think.end() : end_think.start()].strip()
    solution = whole[begin_answer.end() : end_answer.start()].strip()
    if not thought:
        return _defect(DefectKind.EMPTY_THOUGHT, "nothing between its tags", 0)
    if not solution:
        return _defect(DefectKind.EMPTY_SOLUTION, "nothing between its tags", begin_answer.end())
    return Response(thought=thought, solution=solution)


def _defect(kind: DefectKind, detail: str, position: int) -> Defect:
    return Defect(kind=kind, detail=detail, position=max(0, position))
