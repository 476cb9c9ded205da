"""Cleaning: every rule of the recipe over all demonstrations, with exact accounting.

rows -> row rules (workers) -> spool of shingles -> duplicates -> rows again -> kept | dropped

Every round applies the same rules again, to the old rows and the new ones together. The result does
not depend on the order of rows nor on the number of workers. `clean_stream` reads its rows twice
and holds none: a row costs some 6 KiB of memory at any length, and 4 bytes of disk per token.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from still_core.errors import DataError, explain
from still_core.progress import Progress, ProgressListener
from still_core.refine.duplicates import near_duplicates, search, sign_bands
from still_core.refine.funnel import Funnel
from still_core.refine.kernels import U32, U64, shingle_set
from still_core.refine.recipe import CleanRecipe
from still_core.refine.rules import ROW_RULES, Finding
from still_core.responses.response import Demonstration

CHUNK_ROWS = 128
"""Rows judged at a time by one worker; no part of the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """One dropped demonstration and the rule that dropped it."""

    row: Demonstration
    rule: str
    reason: str
    measured: float
    threshold: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refined:
    """What cleaning left, what it dropped, and the counts."""

    kept: list[Demonstration]
    dropped: list[Dropped]
    funnel: Funnel


class _Judged(NamedTuple):
    """What one worker found out about one row."""

    rule: str
    """Row rule that drops it; empty where it passed."""
    finding: Finding | None
    shingles: U32
    bands: U64
    text_digest: bytes


@dataclass(slots=True)
class _Survivors:
    """What the duplicate rules need of the rows that passed the row rules, by rank of passing."""

    places: list[int] = field(default_factory=list)
    """Place of each in the input."""
    keys: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Digest of each one's problem."""
    text_digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Shingles of each one, in the order of the spool."""
    bands: list[U64] = field(default_factory=list)
    statements: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    """Of each problem digest: (key, statement, numbers and gold, problem id) of its lowest key."""

    def add(self, place: int, row: Demonstration, judged: _Judged) -> None:
        """Remember one row."""
        key = stable_key(row)
        self.places.append(place)
        self.keys.append(key)
        self.ids.append(row.id)
        self.problems.append(row.problem_digest)
        self.text_digests.append(judged.text_digest)
        self.sizes.append(len(judged.shingles))
        self.bands.append(judged.bands)
        known = self.statements.get(row.problem_digest)
        if known is None or key < known[0]:
            facts = (key, row.statement, _numbers_and_gold(row), row.problem_id)
            self.statements[row.problem_digest] = facts


def clean(
    demonstrations: Iterable[Demonstration],
    recipe: CleanRecipe,
    *,
    workers: int = 1,
    progress: ProgressListener | None = None,
) -> Refined:
    """Apply the recipe's rules to rows in memory.

    Returns:
        Kept rows in the order of the input, dropped rows by rule and then in that order,
        and a funnel with one step per rule.

    Raises:
        DataError: two demonstrations share an id.
    """
    rows = list(demonstrations)
    kept: list[Demonstration] = []
    dropped: list[Dropped] = []
    funnel = clean_stream(
        lambda: iter(rows),
        recipe,
        keep=kept.append,
        drop=dropped.append,
        workers=workers,
        progress=progress,
    )
    order = {rule: number for number, rule in enumerate(recipe.rules)}
    dropped.sort(key=lambda one: order[one.rule])
    return Refined(kept=kept, dropped=dropped, funnel=funnel)


def clean_stream(
    read: Callable[[], Iterator[Demonstration]],
    recipe: CleanRecipe,
    *,
    keep: Callable[[Demonstration], object],
    drop: Callable[[Dropped], object],
    workers: int = 1,
    spool_dir: Path | None = None,
    progress: ProgressListener | None = None,
) -> Funnel:
    """Apply the recipe's rules to rows that need not fit into memory.

    Args:
        read: gives all rows, in the same order at both calls.
        recipe: rules and thresholds.
        keep: gets every kept row, in order.
        drop: gets every dropped row, in order.
        workers: processes for the row rules; 1 judges in this process.
        spool_dir: where shingles are kept meanwhile, 4 bytes each; the system's folder by default.
        progress: is told the rows judged and written.

    Raises:
        DataError: two demonstrations share an id, or the second reading differs from the first.
    """
    losses: dict[int, tuple[str, Finding]] = {}
    survivors = _Survivors()
    seen: set[bytes] = set()
    count = 0
    with tempfile.TemporaryFile(dir=spool_dir) as spool:
        for row, judged in _judge_all(read(), recipe, workers):
            _refuse_twice(row.id, seen)
            if judged.finding is not None:
                losses[count] = (judged.rule, judged.finding)
            else:
                survivors.add(count, row, judged)
                spool.write(judged.shingles.tobytes())
            count += 1
            _tell(progress, "clean: rules", count, None)
        _tell(progress, "clean: rules", count, count)
        spool.flush()
        _drop_duplicates(survivors, recipe, spool, losses)
    del survivors
    _deliver(read(), losses, count, keep, drop, progress)
    return _account(recipe, count, losses)


def judge(row: Demonstration, recipe: CleanRecipe) -> Dropped | None:
    """The first row rule of the recipe that drops one demonstration; duplicates need all rows."""
    found = _first_finding(row, recipe)
    return _dropped(row, *found) if found else None


def check_ids(rows: Sequence[Demonstration]) -> None:
    """Refuse rows that share an id: neither order nor lineage would be defined.

    Raises:
        DataError: some do.
    """
    seen: set[bytes] = set()
    for row in rows:
        _refuse_twice(row.id, seen)


def stable_key(row: Demonstration) -> str:
    """Who is kept among duplicates: the earlier round, then the lower id."""
    return f"{row.round:06d} {row.id}"


def _first_finding(row: Demonstration, recipe: CleanRecipe) -> tuple[str, Finding] | None:
    for rule in recipe.rules:
        if rule in ROW_RULES and (finding := ROW_RULES[rule](row, recipe)) is not None:
            return rule, finding
    return None


def _judge_chunk(rows: list[Demonstration], recipe: CleanRecipe) -> list[_Judged]:
    """Judge rows and sign those that pass; runs in a worker."""
    searched = "duplicate_response" in recipe.rules
    empty = np.empty(0, np.uint32)
    judged = []
    for row in rows:
        found = _first_finding(row, recipe)
        if found is not None or not searched:
            rule, finding = found or ("", None)
            judged.append(_Judged(rule, finding, empty, np.empty(0, np.uint64), b""))
            continue
        text = f"{row.thought}\n\n{row.solution}"
        shingles = shingle_set(text, recipe.shingle_tokens)
        text_digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        judged.append(_Judged("", None, shingles, sign_bands(shingles), text_digest))
    return judged


def _judge_all(
    rows: Iterator[Demonstration], recipe: CleanRecipe, workers: int
) -> Iterator[tuple[Demonstration, _Judged]]:
    """Every row with its judgement, in order; at most a few chunks are in flight."""
    chunks = iter(lambda: list(islice(rows, CHUNK_ROWS)), [])
    if workers <= 1:
        for chunk in chunks:
            yield from zip(chunk, _judge_chunk(chunk, recipe), strict=True)
        return
    with ExitStack() as stack:
        context = get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context))
        flight = deque(
            (chunk, pool.submit(_judge_chunk, chunk, recipe))
            for chunk in islice(chunks, 2 * workers)
        )
        while flight:
            chunk, future = flight.popleft()
            judged = future.result()
            if (following := next(chunks, None)) is not None:
                flight.append((following, pool.submit(_judge_chunk, following, recipe)))
            yield from zip(chunk, judged, strict=True)


def _refuse_twice(row_id: str, seen: set[bytes]) -> None:
    key = hashlib.blake2b(row_id.encode("utf-8", "replace"), digest_size=12).digest()
    if key in seen:
        raise DataError(
            explain("two demonstrations share an id", got=row_id, remedy="make ids unique")
        )
    seen.add(key)


def _drop_duplicates(
    survivors: _Survivors,
    recipe: CleanRecipe,
    spool: BinaryIO,
    losses: dict[int, tuple[str, Finding]],
) -> None:
    for rule in recipe.rules:
        if rule == "duplicate_problem":
            repeated = _duplicate_problems(survivors.statements, recipe)
            for rank, problem in enumerate(survivors.problems):
                if problem in repeated:
                    losses[survivors.places[rank]] = (rule, repeated[problem])
        elif rule == "duplicate_response":
            for rank, finding in _duplicate_responses(survivors, recipe, spool, losses).items():
                losses[survivors.places[rank]] = (rule, finding)


def _duplicate_responses(
    survivors: _Survivors,
    recipe: CleanRecipe,
    spool: BinaryIO,
    losses: dict[int, tuple[str, Finding]],
) -> dict[int, Finding]:
    """Responses whose thought and solution repeat another response.

    A long text is a repeat whatever its problem; short ones of two problems may agree by chance.
    """
    alive = [rank for rank, place in enumerate(survivors.places) if place not in losses]
    if not alive or not sum(survivors.sizes):
        return {}
    starts = np.zeros(len(survivors.sizes) + 1, np.int64)
    np.cumsum(survivors.sizes, out=starts[1:])
    flat = np.asarray(np.memmap(spool, np.uint32, "r", shape=(int(starts[-1]),)))
    alive.sort(key=survivors.keys.__getitem__)
    bands = np.stack(survivors.bands)
    _, owner = np.unique(np.array(survivors.problems), return_inverse=True)
    found = search(
        flat,
        starts,
        np.array(alive, np.int64),
        bands,
        threshold=recipe.duplicate_jaccard,
        owner=owner.astype(np.int64),
        min_size=recipe.min_duplicate_tokens,
    )
    digests = survivors.text_digests
    return {
        one.index: Finding(
            reason="exact_response" if digests[one.index] == digests[one.of] else "near_response",
            measured=one.jaccard,
            threshold=recipe.duplicate_jaccard,
            detail=survivors.ids[one.of],
        )
        for one in found
    }


def _duplicate_problems(
    statements: dict[str, tuple[str, str, str, str]], recipe: CleanRecipe
) -> dict[str, Finding]:
    """Problems that repeat another one under another identity, by problem digest.

    Several responses to one problem are no duplicates. Two problems count as one when their wording
    is near and both their numbers and gold answers agree: a changed number is another problem.
    """
    groups: dict[str, list[str]] = {}
    for problem, facts in statements.items():
        groups.setdefault(facts[2], []).append(problem)
    drop: dict[str, Finding] = {}
    for members in groups.values():
        if len(members) < 2:
            continue
        found = near_duplicates(
            [statements[problem][1] for problem in members],
            [f"{statements[problem][0]} {problem}" for problem in members],
            threshold=recipe.duplicate_jaccard,
            # Statements are short: five tokens in a row rarely survive a rewording.
            shingle_tokens=min(recipe.shingle_tokens, 3),
        )
        for one in found:
            mine, other = statements[members[one.index]], statements[members[one.of]]
            drop[members[one.index]] = Finding(
                reason="exact_problem" if mine[1] == other[1] else "near_problem",
                measured=one.jaccard,
                threshold=recipe.duplicate_jaccard,
                detail=other[3],
            )
    return drop


def _numbers_and_gold(row: Demonstration) -> str:
    digits = "".join(c if c.isdigit() else " " for c in row.statement).split()
    return " ".join(sorted(digits)) + "|" + "".join(row.gold.split())


def _deliver(
    rows: Iterator[Demonstration],
    losses: dict[int, tuple[str, Finding]],
    count: int,
    keep: Callable[[Demonstration], object],
    drop: Callable[[Dropped], object],
    progress: ProgressListener | None,
) -> None:
    delivered = 0
    for place, row in enumerate(rows):
        if place in losses:
            drop(_dropped(row, *losses[place]))
        else:
            keep(row)
        delivered += 1
        _tell(progress, "clean: rows", delivered, count)
    if delivered != count:
        raise DataError(
            explain("rows changed between two readings", got=delivered, expected=str(count))
        )


def _account(recipe: CleanRecipe, count: int, losses: dict[int, tuple[str, Finding]]) -> Funnel:
    by_rule: dict[str, Counter[str]] = {rule: Counter() for rule in recipe.rules}
    for rule, finding in losses.values():
        by_rule[rule][finding.reason] += 1
    funnel = Funnel()
    for rule in recipe.rules:
        count -= by_rule[rule].total()
        funnel.step(rule, count, by_rule[rule])
    return funnel


def _tell(progress: ProgressListener | None, stage: str, done: int, total: int | None) -> None:
    if progress is not None and (done % CHUNK_ROWS == 0 or done == total):
        progress(Progress(stage=stage, done=done, total=total, unit="rows"))


def _dropped(row: Demonstration, rule: str, finding: Finding) -> Dropped:
    return Dropped(
        row=row,
        rule=rule,
        reason=finding.reason,
        measured=finding.measured,
        threshold=finding.threshold,
        detail=finding.detail,
    )
