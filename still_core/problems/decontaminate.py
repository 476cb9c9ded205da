"""Benchmark problems inside training data: fingerprints, overlap and the gate.

statement -> normalised words -> exact hash + hashes of word n-grams -> overlap with a benchmark

The papers train on AIME up to 2023 and never mention decontamination; without it a score on AIME24
or MATH-OAI says nothing. Three tests, any of which makes an overlap:

- exact: the normalised statements are equal, whatever their LaTeX, white space, delimiters, options
  marks and answer instructions;
- inside: the gold answers agree, and the benchmark problem's words and numbers stand in the
  training problem in one piece, whatever is written around them and however its formulas are spelt;
  or at least half of its runs of three do, both ways, with the same numbers;
- near: at least `containment` of the benchmark problem's word n-grams stand in the training problem
  *and* its numbers do. Problems made from one template share their words but not their numbers, so
  they are no overlap. Where the gold answers agree too, half of it is enough: the wording was
  changed. A problem with fewer than `MIN_NUMBERS` numbers has little to tell it from its template:
  there the gold answers must agree, and the n-grams must match both ways.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from still_core.errors import DataError, explain
from still_core.problems.problem import Problem
from still_core.problems.recipe import DecontaminateRecipe

FINGERPRINT_VERSION = 2
"""Changed whenever a fingerprint could change; stands in every fingerprint row."""
MIN_WORDS = 8
"""Shorter statements are compared exactly only: a few common words prove nothing."""

MIN_NUMBERS = 2
"""Numbers that a statement needs for words and numbers alone to prove an overlap."""
MIN_NGRAMS = 20
"""N-grams that a statement needs to be near another one of another gold answer: a longer text that
asks for the answer in another form is the same problem, a short one is another of its template."""
NUMBER_SHARE = 0.9
"""Share of the benchmark problem's numbers that must stand in the training problem."""
SAME_GOLD = 0.5
"""Part of `containment` that is enough where numbers and gold answers agree."""

_ASK = re.compile(
    r"please reason step by step[^.]{0,80}\\boxed\{\}[^.]{0,80}\.?"
    r"|(?:return|put|give|write) your final (?:answer|response) (?:with)?in \\boxed\{\}\.?"
    r"|let'?s think step by step\.?|<\|\s*assistant\s*\|>",
    re.IGNORECASE,
)
_NOTE = re.compile(
    r"^\s*(?:problem|question|example)\s*\d*\s*[:.]?\s+|^\s*\d{1,3}\s*[.)]\s+"
    r"|\(\s*\d+ points?\s*\)",
    re.IGNORECASE,
)
"""A number or marks in front of the statement, as collections of exam papers keep them."""
_WRAPPERS = re.compile(
    r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|mbox|hbox|emph|rm|bf"
    r"|left|right|big|Big|bigg|Bigg|bigl|bigr|displaystyle|limits|nolimits|quad|qquad|hspace|vspace"
    r"|begin|end|item|par|noindent|centering|label|tag)\b\*?"
)
_ENVIRONMENTS = re.compile(
    r"\{(?:align|aligned|equation|gather|array|center|itemize|enumerate|tabular|split)\*?\}"
)
_SAME = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac \1 \2 "),
    (re.compile(r"\\(?:leq|leqslant)\b"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)\b"), r"\\ge"),
    (re.compile(r"\\neq\b"), r"\\ne"),
    (re.compile(r"\\(?:cdots|ldots|dotsc|dotsb|dots)\b|\.\.\.|\u2026"), " dots "),
    (re.compile(r"\\(?:times|cdot)\b|\u00d7|\u22c5"), " times "),
    (re.compile(r"\^\s*\\circ\b|\^\s*\{\s*\\circ\s*\}|\\degree\b|\u00b0"), " degrees "),
    (re.compile(r"(?<=\d)[,]\\?!?(?=\d{3}(?!\d))"), ""),
    (re.compile(r"[\u2212\u2013\u2014]"), "-"),
    (re.compile(r"\\[()\[\]]"), " "),
)
_SPELLING = {
    "frac", "sqrt", "le", "ge", "leq", "geq", "ne", "neq", "lt", "gt", "times", "cdot", "dots",
    "cdots", "ldots", "degrees", "degree", "circ", "div", "pm", "mp", "angle", "triangle", "infty",
    "in", "notin", "subset", "cup", "cap", "to", "rightarrow", "approx", "equiv", "perp", "mid",
    "parallel", "lfloor", "rfloor", "lceil", "rceil", "sum", "prod", "int", "p", "br", "amp",
    "nbsp", "quot", "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "pi",
    "rho", "sigma", "tau", "phi", "omega",
}  # fmt: skip
"""Names of signs: one writer spells them, another draws them. Left out on both sides."""
MIN_INSIDE = 6
"""Words that a statement needs to be looked for inside another one."""
LEAD = 3
"""Words of the runs that find where a statement may begin, and that tell reworded short ones."""
SAME_RUNS = 0.5
"""Share of the runs of three that statements of one gold answer and the same numbers share."""

_LINK = re.compile(r"https?://\S+")
_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[^\W\d_a-z]")
_WORD_OR_SIGN = re.compile(_WORD.pattern + r"|[+*/=<>^()]|(?<=[\dn)])!|-(?=\s*(?:\d|[a-z]\b|\())")
"""Words and the signs that change what a formula says. A hyphen counts as minus before a term."""


def words(statement: str) -> list[str]:
    """The statement as lower-case words and numbers, free of LaTeX dress and answer instructions.

    CJK text gives one word per character. `$9$-kilometer`, `9-kilometer` and `\\(9\\) kilometer`
    are the same two words.
    """
    return _WORD.findall(_plain(statement))


def _plain(statement: str) -> str:
    text = unicodedata.normalize("NFKC", statement)
    text = _NOTE.sub("", _LINK.sub(" ", _ASK.sub(" ", _without_figures(text))), count=2)
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return _ENVIRONMENTS.sub(" ", _WRAPPERS.sub(" ", text)).lower()


def _without_figures(text: str) -> str:
    """The text without [asy] ... [/asy]; by hand, as a pattern is quadratic on unclosed ones."""
    kept, at = [], 0
    while (start := text.find("[asy]", at)) >= 0 and (end := text.find("[/asy]", start)) >= 0:
        kept.append(text[at:start])
        at = end + len("[/asy]")
    return " ".join([*kept, text[at:]])


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What is kept of a problem to recognise it: hashes, never its text."""

    problem: str
    """Id of the problem."""
    benchmark: str
    """Name of the benchmark, "" for a training problem."""
    exact: str
    """128 bits of the sha256 of the words and signs, without spaces."""
    num_words: int
    ngrams: tuple[int, ...]
    """Sorted 61-bit hashes of the distinct word n-grams; () for short statements."""
    numbers: tuple[str, ...]
    """The numbers of the statement, sorted, with repeats."""
    num_spelt: int
    """Words and numbers without the names of signs."""
    spelt: int
    """61-bit hash of these in a row."""
    runs: tuple[int, ...]
    """Hashes of their runs of three: the first one first, then the others sorted."""
    gold: str
    """Hash of the gold answer, without spaces, dollars, braces and leading zeros."""
    ngram: int
    version: int = FINGERPRINT_VERSION

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        lists = {name: list(getattr(self, name)) for name in ("ngrams", "numbers", "runs")}
        return {**asdict(self), **lists}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Fingerprint:
        """The inverse of `to_row`.

        Raises:
            DataError: the row was made by another version of `words`.
        """
        if row["version"] != FINGERPRINT_VERSION:
            raise DataError(
                explain(
                    "fingerprints of another version",
                    got=row["version"],
                    expected=FINGERPRINT_VERSION,
                    remedy="make them again from the benchmark",
                )
            )
        return cls(
            problem=row["problem"],
            benchmark=row["benchmark"],
            exact=row["exact"],
            num_words=int(row["num_words"]),
            ngrams=tuple(int(item) for item in row["ngrams"]),
            numbers=tuple(row["numbers"]),
            num_spelt=int(row["num_spelt"]),
            spelt=int(row["spelt"]),
            runs=tuple(int(item) for item in row["runs"]),
            gold=row["gold"],
            ngram=int(row["ngram"]),
        )


def fingerprint(problem: Problem, *, benchmark: str = "", ngram: int = 8) -> Fingerprint:
    """The fingerprint of one problem."""
    return _fingerprint(problem, _plain(problem.statement), benchmark, ngram)


def _fingerprint(problem: Problem, plain: str, benchmark: str, ngram: int) -> Fingerprint:
    listed = _WORD.findall(plain)
    grams = _ngram_hashes(listed, ngram) if len(listed) >= max(MIN_WORDS, ngram) else set()
    spelt = _spelt(listed)
    runs = _ngram_hashes(spelt, LEAD) if len(spelt) >= LEAD else set()
    first = _ngram_hashes(spelt[:LEAD], LEAD) if runs else set()
    whole = _ngram_hashes(spelt, len(spelt)) if spelt else {0}
    return Fingerprint(
        problem=problem.id,
        benchmark=benchmark,
        exact=_exact_hash(plain),
        num_words=len(listed),
        ngrams=tuple(sorted(grams)),
        numbers=tuple(sorted(word for word in listed if word[0].isdigit())),
        num_spelt=len(spelt),
        spelt=min(whole),
        runs=(*first, *sorted(runs - first)),
        gold=_gold_hash(problem.gold),
        ngram=ngram,
    )


def _spelt(listed: Sequence[str]) -> list[str]:
    """The words and numbers without the names of signs and without Greek letters."""
    return [word for word in listed if word not in _SPELLING and not "\u0370" <= word <= "\u03ff"]


def statement_key(statement: str) -> str:
    """Equal for statements that differ in dress alone; the text itself where it has no word."""
    plain = _plain(statement)
    return _exact_hash(plain) if _WORD.search(plain) else statement


def _exact_hash(plain: str) -> str:
    return hashlib.sha256("".join(_WORD_OR_SIGN.findall(plain)).encode()).hexdigest()[:32]


_MODULUS = (1 << 61) - 1
_BASE = 0x1B87_3593_CC9E_2D51 % _MODULUS


def _ngram_hashes(listed: Sequence[str], length: int) -> set[int]:
    """Hashes of the distinct runs of `length` words, rolled along: one step a word."""
    hashes = [_word_hash(word) for word in listed]
    oldest = pow(_BASE, length - 1, _MODULUS)
    value = 0
    for new in hashes[:length]:
        value = (value * _BASE + new) % _MODULUS
    found = {value}
    for old, new in zip(hashes, hashes[length:], strict=False):
        value = ((value - old * oldest) * _BASE + new) % _MODULUS
        found.add(value)
    return found


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % _MODULUS


def _gold_hash(gold: str) -> str:
    bare = "".join(words(gold)).lstrip("0") or "".join(gold.split())
    return hashlib.sha256(bare.encode()).hexdigest()[:16]


def fingerprint_benchmarks(
    benchmarks: Mapping[str, Iterable[Problem]], *, ngram: int = 8
) -> list[Fingerprint]:
    """Fingerprints of every benchmark: the table that is an input of the training task."""
    return [
        fingerprint(problem, benchmark=name, ngram=ngram)
        for name in sorted(benchmarks)
        for problem in benchmarks[name]
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """One training problem that is a benchmark's."""

    problem: str
    """Id of the training problem."""
    benchmark: str
    benchmark_problem: str
    match: Literal["exact", "near"]
    containment: float
    """Share of the benchmark problem's n-grams in the training problem; 1 for exact matches."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOverlap:
    """Overlap with one benchmark."""

    benchmark: str
    size: int
    """Problems in the benchmark, repeats included."""
    num_found: int
    """Benchmark problems found in the training data."""
    num_training: int
    """Training problems that are this benchmark's."""
    num_repeats: int
    """Benchmark problems that repeat another of the same benchmark."""

    @property
    def share(self) -> float:
        """num_found / size, in [0, 1]."""
        return self.num_found / self.size if self.size else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapReport:
    """What decontamination found."""

    kept: list[Problem]
    """Training problems without overlap, in their order."""
    overlaps: list[Overlap]
    """At most one row per training problem and benchmark problem."""
    benchmarks: list[BenchmarkOverlap]
    num_training: int
    waiver: str = ""
    """Who allowed an overlap above the threshold, and why; set by `require_clean`."""

    @property
    def dropped(self) -> set[str]:
        """Ids of the training problems with overlap."""
        return {overlap.problem for overlap in self.overlaps}

    def to_rows(self) -> list[dict[str, Any]]:
        """One row per benchmark, for the report's table."""
        return [
            {**asdict(item), "share": item.share, "waiver": self.waiver} for item in self.benchmarks
        ]

    def to_markdown(self) -> str:
        """A table for people: one line per benchmark."""
        lines = [
            "| benchmark | problems | repeats | found in training | share | training problems |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for item in self.benchmarks:
            lines.append(
                f"| {item.benchmark} | {item.size} | {item.num_repeats} | {item.num_found} "
                f"| {item.share:.1%} | {item.num_training} of {self.num_training} |"
            )
        return "\n".join(lines)


def decontaminate(
    problems: Sequence[Problem],
    benchmarks: Mapping[str, Sequence[Problem]],
    *,
    recipe: DecontaminateRecipe | None = None,
) -> OverlapReport:
    """Find the training problems that are a benchmark's.

    Args:
        problems: training problems.
        benchmarks: problems of every benchmark by name.
        recipe: n-gram length and containment of a near match.
    """
    settings = recipe or DecontaminateRecipe()
    return match_fingerprints(
        problems, fingerprint_benchmarks(benchmarks, ngram=settings.ngram), recipe=settings
    )


def match_fingerprints(
    problems: Sequence[Problem],
    fingerprints: Sequence[Fingerprint],
    *,
    recipe: DecontaminateRecipe | None = None,
) -> OverlapReport:
    """As `decontaminate`, from the benchmarks' fingerprints alone.

    Raises:
        DataError: the fingerprints have another n-gram length than the recipe.
    """
    settings = recipe or DecontaminateRecipe()
    if wrong := {item.ngram for item in fingerprints} - {settings.ngram}:
        raise DataError(
            explain("fingerprints of another n-gram length", got=wrong, expected=settings.ngram)
        )
    index = _Index(fingerprints)
    kept: list[Problem] = []
    overlaps: list[Overlap] = []
    for problem in problems:
        plain = _plain(problem.statement)
        own = _fingerprint(problem, plain, "", settings.ngram)
        found = index.matches(own, settings.containment, _WORD.findall(plain))
        overlaps.extend(found)
        if not found:
            kept.append(problem)
    return OverlapReport(
        kept=kept,
        overlaps=overlaps,
        benchmarks=_per_benchmark(fingerprints, overlaps),
        num_training=len(problems),
    )


class _Index:
    """Inverted index from exact hashes and n-grams to benchmark problems."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        self._fingerprints = fingerprints
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._ngrams: dict[int, list[int]] = defaultdict(list)
        self._runs: dict[int, list[int]] = defaultdict(list)
        self._leads: dict[int, list[int]] = defaultdict(list)
        for number, item in enumerate(fingerprints):
            if item.num_words:
                self._exact[item.exact].append(number)
            for gram in item.ngrams:
                self._ngrams[gram].append(number)
            for run in item.runs:
                self._runs[run].append(number)
            if item.num_spelt >= MIN_INSIDE:
                self._leads[item.runs[0]].append(number)

    def matches(
        self, training: Fingerprint, containment: float, listed: Sequence[str]
    ) -> list[Overlap]:
        exact = set(self._exact.get(training.exact, ()))
        inside = self._inside(training, _spelt(listed)) | self._reworded(training)
        shared = Counter(
            number for gram in training.ngrams for number in self._ngrams.get(gram, ())
        )
        found = []
        for number in sorted(exact | inside | set(shared)):
            other = self._fingerprints[number]
            share = shared[number] / len(other.ngrams) if other.ngrams else 0.0
            share = 1.0 if number in exact else share
            near = number in inside or _is_near(training, other, share, containment)
            if number in exact or near:
                found.append(
                    Overlap(
                        problem=training.problem,
                        benchmark=other.benchmark,
                        benchmark_problem=other.problem,
                        match="exact" if number in exact else "near",
                        containment=round(share, 4),
                    )
                )
        return found

    def _inside(self, training: Fingerprint, spelt: Sequence[str]) -> set[int]:
        """Benchmark problems of the same gold whose words stand in a row in the other."""
        found: set[int] = set()
        if len(spelt) < MIN_INSIDE:
            return found
        sums = _prefix_hashes(spelt)
        cube = pow(_BASE, LEAD, _MODULUS)
        for start in range(len(spelt) - LEAD + 1):
            lead = (sums[start + LEAD] - sums[start] * cube) % _MODULUS
            for number in self._leads.get(lead, ()):
                other = self._fingerprints[number]
                end = start + other.num_spelt
                if other.gold != training.gold or end > len(spelt):
                    continue
                span = pow(_BASE, other.num_spelt, _MODULUS)
                if (sums[end] - sums[start] * span) % _MODULUS == other.spelt:
                    found.add(number)
        return found

    def _reworded(self, training: Fingerprint) -> set[int]:
        """Benchmark problems of the same gold and numbers that share half of the runs."""
        shared = Counter(n for run in training.runs for n in self._runs.get(run, ()))
        found: set[int] = set()
        for number, both in shared.items():
            other = self._fingerprints[number]
            longer = max(len(training.runs), len(other.runs))
            if (
                both >= SAME_RUNS * longer
                and longer >= LEAD + 1
                and other.gold == training.gold
                and other.numbers == training.numbers
            ):
                found.add(number)
        return found


def _prefix_hashes(listed: Sequence[str]) -> list[int]:
    """[len + 1] hash of the words before each place, from which any run's hash follows."""
    sums = [0]
    for word in listed:
        sums.append((sums[-1] * _BASE + _word_hash(word)) % _MODULUS)
    return sums


def _is_near(
    training: Fingerprint, benchmark: Fingerprint, share: float, containment: float
) -> bool:
    """Whether two problems that share words are one problem and not one template.

    Args:
        training: fingerprint of a training problem.
        benchmark: fingerprint of a benchmark problem.
        share: share of the benchmark problem's n-grams in the training problem.
        containment: the recipe's least share.
    """
    missing = (Counter(benchmark.numbers) - Counter(training.numbers)).total()
    if missing > (1 - NUMBER_SHARE) * len(benchmark.numbers):
        return False
    has_numbers = len(benchmark.numbers) >= MIN_NUMBERS
    if training.gold == benchmark.gold and has_numbers:
        return share >= containment * SAME_GOLD
    if share < containment:
        return False
    if training.gold == benchmark.gold:
        both = len(set(training.ngrams) & set(benchmark.ngrams))
        return both >= containment * len(training.ngrams)
    # The same words ask for the same form of answer: another answer means other signs.
    reworded = training.ngrams != benchmark.ngrams
    return reworded and has_numbers and len(benchmark.ngrams) >= MIN_NGRAMS


def _per_benchmark(
    fingerprints: Sequence[Fingerprint], overlaps: Sequence[Overlap]
) -> list[BenchmarkOverlap]:
    listed = []
    for name in sorted({item.benchmark for item in fingerprints}):
        own = [item for item in fingerprints if item.benchmark == name]
        hits = [overlap for overlap in overlaps if overlap.benchmark == name]
        listed.append(
            BenchmarkOverlap(
                benchmark=name,
                size=len(own),
                num_found=len({overlap.benchmark_problem for overlap in hits}),
                num_training=len({overlap.problem for overlap in hits}),
                num_repeats=len(own) - len({item.exact for item in own}),
            )
        )
    return listed


def without_overlaps(report: OverlapReport) -> OverlapReport:
    """The report on the kept problems alone, none of which overlaps."""
    cleared = [replace(item, num_found=0, num_training=0) for item in report.benchmarks]
    return replace(report, overlaps=[], benchmarks=cleared, num_training=len(report.kept))


def require_clean(
    report: OverlapReport, *, threshold: float = 0.0, waiver: str | None = None
) -> OverlapReport:
    """The gate: pass a clean report, record a named waiver, or refuse.

    Args:
        report: what `decontaminate` found in the data that would be trained on.
        threshold: share of a benchmark's problems, in [0, 1], that may be in the training data.
        waiver: who allows more, and why.
    Returns:
        The report; with the waiver where one was needed.
    Raises:
        DataError: overlap above the threshold and no waiver.
    """
    above = [item for item in report.benchmarks if item.share > threshold]
    if not above:
        return report
    if waiver and waiver.strip():
        return replace(report, waiver=waiver.strip())
    worst = ", ".join(f"{item.benchmark} {item.num_found} of {item.size}" for item in above)
    raise DataError(
        explain(
            "benchmark problems in the training data",
            got=worst,
            expected=f"at most {threshold:.1%} of each benchmark",
            remedy="drop them (decontaminate.drop) or record a named waiver (decontaminate.waiver)",
        )
    )


def duplicates(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Problems that are the same problem: first id -> ids of its repeats, in order."""
    first: dict[str, str] = {}
    repeats: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        key = statement_key(problem.statement)
        if key in first:
            repeats[first[key]].append(problem.id)
        else:
            first[key] = problem.id
    return dict(repeats)
