"""Cleaning rules that look at one demonstration at a time: pure functions with reason codes.

Demonstration + CleanRecipe -> Finding | None

A finding names its reason and the measured value beside the threshold, so that a dropped row can be
judged. Mathematics, code and the Greek letters of formulas are no gibberish and no foreign script.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from still_core.refine.kernels import (
    U64,
    least_plausible_capitals,
    least_plausible_characters,
    least_plausible_words,
    longest_blob,
    longest_loop,
    odd_words,
    previous_occurrences,
    token_hashes,
    word_loop,
)
from still_core.refine.plausibility import CHARACTERS, KINDS, LETTERS
from still_core.refine.recipe import CleanRecipe
from still_core.responses.ending import ends_abruptly
from still_core.responses.format import has_format_token, split_steps
from still_core.responses.response import Demonstration


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Why a rule drops a demonstration."""

    reason: str
    """Stable code, counted in the funnel."""
    measured: float
    threshold: float
    detail: str = ""
    """A short piece of evidence for people."""


Check = Callable[[Demonstration, CleanRecipe], Finding | None]

_MARKUP = re.compile(
    r"</?think>|</?answer>|<\|im_(?:start|end)\|>|<\|endoftext\|>|<\|(?:end|start)_header_id\|>"
    "|<\\|eot_id\\|>|<\uff5c[^\uff5c>\n]{1,30}\uff5c>|<\\|(?:User|Assistant)\\|>"
)
_SYMBOLS = re.compile("[\u00c0-\u024f]{16,}|[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f\u200d]{24,}")
"""Letters with marks without a plain one between them; pictures and signs without a word."""
_DRAWN_LINE = re.compile(r"-{8,160}(?!-)|={8,160}(?!=)|_{8,160}(?!_)|([*#~.])\1{7,159}(?!\1)")
"""Longer ones are drawn by nobody: a loop."""
LONG_WORD = 48
"""Letters from which a word is looked at for one syllable over and over."""
_BROKEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff\U000f0000-\U0010ffff]"
)
_SCRIPTS: dict[str, re.Pattern[str]] = {
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "kana": re.compile("[\u3041-\u30ff]"),
    "hangul": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile("[\u0400-\u052f]"),
    "arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "hebrew": re.compile("[\u0590-\u05ff]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "thai": re.compile("[\u0e00-\u0e7f]"),
    "other": re.compile(
        "[\u0530-\u058f\u0700-\u074f\u0780-\u08ff\u0980-\u0dff\u0e80-\u10ff\u1200-\u1aff\u1b00-\u1cff]"
    ),
    # Single Greek letters are mathematics; a run of four is a word.
    "greek": re.compile("(?<=[\u0370-\u03ff]{3})[\u0370-\u03ff]"),
}
_ANY_SCRIPT = re.compile(
    "[\u0370-\u1cff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
_LATIN_WORD = re.compile(r"(?<![A-Za-z\\_{}])[A-Za-z]{4,}(?![A-Za-z_({}])")
_NOT_PROSE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$[^$]*\$\$|\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)|!\[[^\]]*\]\([^)]*\)|https?://\S+",
    re.DOTALL,
)


def check_verdict(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """Keep responses whose answer the verifier found correct; all other verdicts are reasons."""
    if row.verdict in recipe.keep_outcomes:
        return None
    return Finding(reason=row.verdict or "unverified", measured=0.0, threshold=1.0)


def check_markup(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """Missing parts and tokens of this or another format inside a part."""
    for name, part in (("thought", row.thought), ("solution", row.solution)):
        if not part.strip():
            return Finding(reason=f"empty_{name}", measured=0.0, threshold=1.0)
        if has_format_token(part):
            return Finding(reason="format_token", measured=1.0, threshold=0.0, detail=name)
        if found := _MARKUP.search(part):
            return Finding(
                reason="foreign_markup", measured=1.0, threshold=0.0, detail=found.group()
            )
    return None


def check_truncated(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """The solution stops before its end; a thought that a solution follows may end as it likes."""
    if ends_abruptly(row.solution):
        return Finding(reason="truncated", measured=1.0, threshold=0.0, detail=row.solution[-40:])
    return None


def check_short(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """Relatively short thoughts: longer instances lead to better performance (STILL-2, 2.2.1)."""
    size = len(row.thought)
    if size < recipe.min_thought_characters:
        return Finding(
            reason="short_thought",
            measured=float(size),
            threshold=float(recipe.min_thought_characters),
        )
    steps = len(split_steps(row.thought)) if recipe.min_thought_steps > 1 else 1
    if steps < recipe.min_thought_steps:
        return Finding(
            reason="few_steps", measured=float(steps), threshold=float(recipe.min_thought_steps)
        )
    return None


def check_repetition(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """Loops (one stretch over and over) and large shares of repeated n-grams, in the thought."""
    thought = _without_drawn_lines(row.thought)
    tokens, masked = token_hashes(thought), token_hashes(thought, masked=True)
    # Short n-grams find loops of few tokens; long ones those whose turns repeat words inside.
    sizes = (4, recipe.repetition_ngram_tokens)
    earlier = [previous_occurrences(tokens, size) for size in sizes]
    for size, previous in zip(sizes, earlier, strict=True):
        _, period, covered = longest_loop(
            tokens,
            min_tokens=recipe.min_loop_tokens,
            min_turns=recipe.min_loop_turns,
            size=size,
            previous=previous,
        )
        if period:
            return _loop("loop", period, covered, recipe.min_loop_turns)
    _, period, covered = word_loop(
        tokens,
        masked,
        size=4,
        min_tokens=recipe.min_word_loop_tokens,
        min_short_tokens=recipe.min_short_loop_tokens,
        min_turns=recipe.min_loop_turns,
        previous=earlier[0],
    )
    if period:
        return _loop("loop", period, covered, recipe.min_loop_turns)
    if finding := _numbered_loop(tokens, masked, recipe):
        return finding
    previous = earlier[1]
    share = float(np.count_nonzero(previous >= 0)) / len(previous) if len(previous) else 0.0
    if share > recipe.max_repeated_ngrams:
        return Finding(
            reason="repeated_ngrams", measured=share, threshold=recipe.max_repeated_ngrams
        )
    return None


def _without_drawn_lines(thought: str) -> str:
    """The thought with lines drawn of one sign, as under headings and in tables, made short."""
    if not any(sign * 8 in thought for sign in "-=_*#~."):
        return thought
    return _DRAWN_LINE.sub(lambda line: line.group()[:4], thought)


def _numbered_loop(exact: U64, tokens: U64, recipe: CleanRecipe) -> Finding | None:
    """A sentence over and over in which a counter alone changes.

    Checking cases one by one is sound mathematics: there a case and its result change, two numbers
    or more in every turn.
    """
    for size in (4, recipe.repetition_ngram_tokens):
        start, period, covered = longest_loop(
            tokens,
            min_tokens=recipe.min_loop_tokens,
            min_turns=recipe.min_numbered_loop_turns,
            size=size,
        )
        if not period:
            continue
        words = np.count_nonzero(tokens[start : start + period] & np.uint64(1))
        looped = exact[start : start + covered]
        changes = np.count_nonzero(looped[period:] != looped[:-period]) / (covered / period - 1.0)
        if words >= recipe.min_numbered_loop_words and changes <= recipe.max_numbered_loop_changes:
            return _loop("numbered_loop", period, covered, recipe.min_numbered_loop_turns)
    return None


def _loop(reason: str, period: int, covered: int, threshold: float) -> Finding:
    return Finding(
        reason=reason,
        measured=covered / period,
        threshold=threshold,
        detail=f"{covered} tokens in turns of {period}",
    )


def check_gibberish(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """Broken characters, encoded data, and windows of unlikely letters or symbols."""
    for part in (row.thought, row.solution):
        broken = _BROKEN.findall(part)
        if len(broken) > recipe.max_broken_characters:
            return Finding(
                reason="broken_characters",
                measured=float(len(broken)),
                threshold=float(recipe.max_broken_characters),
                detail=repr(broken[0]),
            )
        size, at = longest_blob(part)
        if size > recipe.max_blob_characters:
            limit = float(recipe.max_blob_characters)
            return _evidence("encoded_data", float(size), limit, part, at)
        worst, at = least_plausible_words(part, LETTERS, recipe.gibberish_window_letters)
        if worst < recipe.min_word_plausibility:
            return _evidence("unlikely_words", worst, recipe.min_word_plausibility, part, at)
        worst, at = least_plausible_capitals(
            part,
            LETTERS,
            min_words=recipe.min_gibberish_words,
            min_letters=recipe.gibberish_window_letters // 2,
        )
        if worst < recipe.min_word_plausibility:
            return _evidence("unlikely_words", worst, recipe.min_word_plausibility, part, at)
        if finding := _odd_run(part, recipe):
            return finding
        window = recipe.gibberish_window_characters
        worst, at = least_plausible_characters(part, KINDS, CHARACTERS, window)
        if worst < recipe.min_character_plausibility:
            limit = recipe.min_character_plausibility
            return _evidence("unlikely_characters", worst, limit, part, at)
    return None


def _odd_run(part: str, recipe: CleanRecipe) -> Finding | None:
    """Runs that no language or formula has: words of letters and digits, symbols, one syllable."""
    limit = float(recipe.min_gibberish_words)
    longest, longest_at, run, run_at = odd_words(part)
    if run >= recipe.min_gibberish_words:
        return _evidence("unlikely_characters", float(run), limit, part, run_at)
    if not part.isascii():
        for found in _SYMBOLS.finditer(part):
            distinct = len(set(found.group()))
            if distinct >= 2 * recipe.min_gibberish_words:
                return Finding(
                    reason="unlikely_characters",
                    measured=float(distinct),
                    threshold=2 * limit,
                    detail=found.group()[:40],
                )
    if longest < LONG_WORD:
        return None
    word = part.encode("utf-8", "replace")[longest_at : longest_at + longest].lower()
    for period in range(1, 9):
        same = sum(a == b for a, b in zip(word, word[period:], strict=False))
        if same >= 0.9 * (longest - period):
            return _evidence("unlikely_words", longest / period, limit, part, longest_at)
    return None


def _evidence(reason: str, measured: float, threshold: float, text: str, at: int) -> Finding:
    found = text.encode("utf-8", "replace")[at : at + 60].decode("utf-8", "ignore")
    return Finding(reason=reason, measured=measured, threshold=threshold, detail=found)


def check_scripts(row: Demonstration, recipe: CleanRecipe) -> Finding | None:
    """A script in the response that the problem does not have (English and Chinese mixed, ...).

    A response wholly in another language than its problem is not mixed: its own main script counts
    as its own. Latin words inside a Chinese response count by words outside formulas and code.
    """
    text = f"{row.thought}\n{row.solution}"
    if text.isascii() or not _ANY_SCRIPT.search(text):
        return None
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    main = max(counts, key=counts.__getitem__)
    prose = _NOT_PROSE.sub(" ", text)
    latin = sum(len(word) for word in _LATIN_WORD.findall(prose))
    if counts[main] <= latin:
        main = "latin"
    for name, pattern in _SCRIPTS.items():
        if name == main or (main in ("han", "kana") and name in ("han", "kana")):
            continue
        if counts[name] > recipe.max_foreign_letters and not pattern.search(row.statement):
            return _mixed(name, counts[name], pattern, text, recipe)
    other = max((n for n in _SCRIPTS if n != "greek"), key=counts.__getitem__)
    # Four letters a word, so that a single word passes, as a name or a unit would.
    limit = 4 * recipe.max_foreign_letters + 12
    if latin > limit and 20 * counts[other] > latin and not _has_latin_prose(row.statement):
        return _mixed("latin", latin, _LATIN_WORD, prose, recipe)
    return None


def _has_latin_prose(text: str) -> bool:
    """Whether a problem has words in Latin letters outside formulas, code and links."""
    found: list[str] = _LATIN_WORD.findall(_NOT_PROSE.sub(" ", text))
    return sum(word.islower() for word in found) >= 3


def _mixed(
    script: str, count: int, pattern: re.Pattern[str], text: str, recipe: CleanRecipe
) -> Finding:
    found = pattern.search(text)
    at = found.start() if found else 0
    return Finding(
        reason=f"mixed_{script}",
        measured=float(count),
        threshold=float(recipe.max_foreign_letters),
        detail=text[max(0, at - 20) : at + 20],
    )


ROW_RULES: dict[str, Check] = {
    "verdict": check_verdict,
    "markup": check_markup,
    "truncated": check_truncated,
    "short": check_short,
    "repetition": check_repetition,
    "gibberish": check_gibberish,
    "scripts": check_scripts,
}
"""Rules by name; their order in use is the recipe's."""
