"""Collect problems, and the responses beside them, from sources; every row is accounted for.

SourceSpec -> rows -> adapter -> Problem (+ RawResponse) | quarantined | filtered
in = kept + quarantined + filtered, exactly, per source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from still_core.errors import ConfigError, DataError, explain
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.problems.recipe import BenchmarkSpec, SourceSpec
from still_core.problems.rows import Limits, MalformedRow, Quarantined, Row, local_place, read_rows
from still_core.problems.sources import Adapter, Context, FilteredRow, ProblemDraft, adapter
from still_core.progress import Progress, ProgressListener

if TYPE_CHECKING:
    from still_core.refine.funnel import Funnel

PROGRESS_ROWS = 1000
LIST_ROWS = ("orz",)
"""Adapters whose rows are lists, not objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCount:
    """What became of the rows of one source."""

    source: str
    rows_in: int
    kept: int
    quarantined: dict[str, int]
    filtered: dict[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether in = kept + quarantined + filtered."""
        dropped = sum(self.quarantined.values()) + sum(self.filtered.values())
        return self.rows_in == self.kept + dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A sound row that its source does not want."""

    id: str
    """`source/row`, as a problem of this row would be called."""
    file: str
    line: int
    reason: str
    """no_gold, other_subset, year, proof, picture, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Problems of one or more sources, with what was left out."""

    problems: list[Problem]
    responses: list[RawResponse] = field(default_factory=list)
    """Responses that the rows held beside their problems, in row order."""
    quarantined: list[Quarantined] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    counts: list[SourceCount] = field(default_factory=list)

    @property
    def funnel(self) -> Funnel:
        """One step, `read`: kept problems, and what was left out by reason."""
        from still_core.refine.funnel import Funnel

        dropped: Counter[str] = Counter()
        for count in self.counts:
            dropped.update({f"malformed:{name}": n for name, n in count.quarantined.items()})
            dropped.update({f"left_out:{name}": n for name, n in count.filtered.items()})
        return Funnel().step("read", len(self.problems), dropped)


def collect(
    specs: Iterable[SourceSpec],
    *,
    base: Path | None = None,
    limits: Limits | None = None,
    progress: ProgressListener | None = None,
) -> Collection:
    """Read every source.

    Args:
        specs: sources in the order their problems come out.
        base: folder that relative local paths start from.
        limits: bounds on one row.
        progress: told every thousand rows, and of each source's end.
    Raises:
        ConfigError: an unknown adapter, a path with nothing there, two sources of one name.
        DataError: a file can not be opened as what its name says.
    """
    listed = list(specs)
    names = Counter(spec.name for spec in listed)
    if twice := [name for name, n in names.items() if n > 1]:
        raise ConfigError(explain("two sources of one name", got=twice, remedy="rename one"))
    collection = Collection(problems=[])
    for spec in listed:
        _collect_one(spec, collection, base, limits, progress)
    return collection


def collect_benchmarks(
    specs: Iterable[BenchmarkSpec], *, base: Path | None = None
) -> dict[str, list[Problem]]:
    """The problems of every benchmark by name.

    Raises:
        DataError: a benchmark has no readable problem, or a malformed row: a benchmark with holes
            would neither measure nor guard.
    """
    benchmarks: dict[str, list[Problem]] = {}
    for spec in specs:
        found = collect([spec.source], base=base)
        if found.quarantined or not found.problems:
            reason = found.quarantined[0] if found.quarantined else "no problems"
            raise DataError(explain(f"benchmark {spec.name!r} can not be read", got=reason))
        benchmarks[spec.name] = found.problems
    return benchmarks


def _collect_one(
    spec: SourceSpec,
    collection: Collection,
    base: Path | None,
    limits: Limits | None,
    progress: ProgressListener | None,
) -> None:
    stage = f"collect {spec.name}"
    rows_in = kept = 0
    quarantined: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    for item in _items(spec, base, limits):
        if spec.limit is not None and rows_in >= spec.limit:
            break
        rows_in += 1
        if isinstance(item, Quarantined):
            collection.quarantined.append(item)
            quarantined[item.reason] += 1
        elif isinstance(item, LeftOut):
            collection.left_out.append(item)
            filtered[item.reason] += 1
        else:
            problem, responses = item
            collection.problems.append(problem)
            collection.responses.extend(responses)
            kept += 1
        if progress is not None and rows_in % PROGRESS_ROWS == 0:
            progress(Progress(stage=stage, done=rows_in, total=None, unit="rows"))
    if progress is not None:
        progress(Progress(stage=stage, done=rows_in, total=rows_in, unit="rows"))
    collection.counts.append(
        SourceCount(
            source=spec.name,
            rows_in=rows_in,
            kept=kept,
            quarantined=dict(sorted(quarantined.items())),
            filtered=dict(sorted(filtered.items())),
        )
    )


Item = tuple[Problem, list[RawResponse]] | Quarantined | LeftOut
"""A problem with its responses, a malformed row, or a sound row that is left out."""


def _items(spec: SourceSpec, base: Path | None, limits: Limits | None) -> Iterator[Item]:
    if spec.adapter == "miniature" or spec.path.startswith("miniature:"):
        for problem in _miniature(spec):
            yield problem, []
        return
    reader, start = adapter(spec.adapter), _start_of(spec, base)
    for row in read_rows(spec.path, base=base, limits=limits):
        name = _name_of_file(spec, row.file, start)
        row_id = _row_id(name, spec, row.index)
        if isinstance(row, Quarantined):
            yield replace(row, id=row_id)
        else:
            yield _item(row, name, row_id, spec, reader)


def _start_of(spec: SourceSpec, base: Path | None) -> str:
    """The folder, archive or file that a source's names begin with; of a glob, the fixed folder."""
    if spec.path.startswith("hf:"):
        return spec.path
    path = spec.path if "://" in spec.path else str(local_place(spec.path, base))
    fixed, *varies = re.split(r"[*?\[]", path, maxsplit=1)
    return fixed.rpartition("/")[0] if varies else fixed.rstrip("/")


def _name_of_file(spec: SourceSpec, file: str, start: str) -> str:
    """The source; sources of several files (a folder, an archive) need the file in it too.

    The file stands with its folders below the source's own: MATH has an `algebra/1.json` and a
    `geometry/1.json`. Where the source lies is not in it, so that equal data have equal names.
    """
    if file in (spec.path, start):
        return spec.name
    return f"{spec.name}/{file.removeprefix(start).lstrip('/')}"


def _row_id(name: str, spec: SourceSpec, index: int) -> str:
    return f"{name}/{index}" if name == spec.name else f"{name}:{index}"


def _item(row: Row, name: str, row_id: str, spec: SourceSpec, reader: Adapter) -> Item:
    """One row through its adapter."""
    try:
        if not isinstance(row.value, dict) and reader.name not in LIST_ROWS:
            raise MalformedRow("not_an_object", type(row.value).__name__)
        draft = reader.read(row.value, Context(spec=spec, file=row.file))
    except FilteredRow as left_out:
        reason = str(left_out.args[0])
        return LeftOut(id=row_id, file=row.file, line=row.line, reason=reason)
    except MalformedRow as bad:
        return Quarantined(
            file=row.file,
            line=row.line,
            index=row.index,
            reason=str(bad.args[0]),
            detail=ascii(bad.args[1])[1:-1][:300],
            id=row_id,
        )
    return _problem(row, name, row_id, spec, reader, draft)


def _problem(
    row: Row, name: str, row_id: str, spec: SourceSpec, reader: Adapter, draft: ProblemDraft
) -> tuple[Problem, list[RawResponse]]:
    problem = Problem(
        id=row_id,
        statement=draft.statement,
        gold=draft.gold,
        kind=spec.kind or draft.kind,
        domain=spec.domain or draft.domain,
        bucket=spec.bucket or draft.bucket,
        source=spec.name,
        row=row.index,
        level=draft.level,
        choices=draft.choices,
        solution=draft.solution,
        licence=spec.licence if spec.licence is not None else reader.licence,
    )
    several = len(draft.responses) > 1
    responses = [
        RawResponse(
            id=f"{problem.id}#{number}" if several else problem.id,
            problem=problem,
            text=written.text,
            reasoning=written.reasoning,
            finish_reason=written.finish_reason,
            teacher=written.teacher or spec.teacher,
            source_file=name,
            row=row.index,
        )
        for number, written in enumerate(draft.responses)
    ]
    return problem, responses


def _miniature(spec: SourceSpec) -> list[Problem]:
    """`miniature:arithmetic/hard?count=200&seed=7`: generated problems."""
    from still_core.miniature.problems import generate

    where, _, query = spec.path.removeprefix("miniature:").partition("?")
    domain, _, level = where.partition("/")
    options: dict[str, Any] = dict(parse_qsl(query))
    try:
        count, seed = int(options.pop("count", "100")), int(options.pop("seed", "0"))
    except ValueError as error:
        raise ConfigError(explain("count and seed are whole numbers", got=spec.path)) from error
    if options or not domain or not level:
        raise ConfigError(
            explain(
                "bad miniature path", got=spec.path, expected="miniature:DOMAIN/LEVEL?count=&seed="
            )
        )
    return [
        replace(
            problem,
            id=f"{spec.name}/{problem.row}",
            source=spec.name,
            kind=spec.kind or problem.kind,
            domain=spec.domain or problem.domain,
            bucket=spec.bucket or problem.bucket,
        )
        for problem in generate(domain, level, count, seed)
    ]
