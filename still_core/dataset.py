"""From a recipe to D_0: problems and teachers' responses -> the demonstrations of the first round.

prepare_problems -> gather -> unify -> (complete) -> verify -> clean -> mix -> DataSet -> publish
(STILL-2 section 2.2). Every row is accounted for: the two funnels start at rows read and responses
read, and what fell out on the way stands in a table with the rule that dropped it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from still_core.errors import ConfigError, DataError, explain
from still_core.identity import digest
from still_core.problems.collect import Collection, SourceCount, collect
from still_core.problems.decontaminate import Fingerprint, fingerprint, match_fingerprints
from still_core.problems.prepare import Prepared, prepare_problems
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.problems.recipe import DecontaminateRecipe, SourceSpec
from still_core.problems.sources import ADAPTERS
from still_core.progress import ProgressListener
from still_core.recipes.recipe import Still2Recipe
from still_core.refine.clean import clean
from still_core.refine.funnel import Funnel
from still_core.refine.lineage import dropped_rows, rules_meta
from still_core.refine.mix import Mixture, mix
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.responses.demonstrations import distilled
from still_core.responses.response import Demonstration
from still_core.responses.unify import Unified, unify_all
from still_core.store.bundle import publish_tables
from still_core.store.handle import Handle
from still_core.store.store import Store
from still_core.verify.recipe import VerifyRecipe

DATASET_VERSION = "2026.11.21"
"""Part of a data set's version; changed whenever the same recipe would give other rows."""

LiveTeacher = Callable[[Teacher, Sequence[Problem]], list[RawResponse]]
"""Asks a live teacher (endpoint or local model) for responses."""
Completer = Callable[[Sequence[tuple[RawResponse, Unified]]], list[Unified]]
"""Writes the solutions of thoughts that have none, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A response that became no demonstration."""

    response: str
    """Id of the raw response."""
    problem: str
    source_file: str
    row: int
    """0-based row of that file."""
    teacher: str
    rule: str
    """no_problem, surplus, format or needs_solution."""
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """Raw responses with a problem each, by teacher in recipe order."""

    by_teacher: list[tuple[Teacher, list[RawResponse]]]
    set_aside: list[SetAside]
    num_read: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafts:
    """Unified responses: judged demonstrations, and thoughts that still lack a solution."""

    demonstrations: list[Demonstration]
    """Wrong ones included: the cleaning rule `verdict` drops them by name."""
    incomplete: list[tuple[RawResponse, Unified]]
    set_aside: list[SetAside]
    funnel: Funnel
    """From responses read to responses with thought and solution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """D_0 and the account of everything that is not in it."""

    mixture: Mixture
    prepared: Prepared
    drafts: Drafts
    dropped: list[dict[str, Any]]
    """Demonstrations that a cleaning rule or the mixture dropped, with the rule."""
    funnel: Funnel
    """From responses read to demonstrations kept."""


def build_dataset(
    recipe: Still2Recipe,
    *,
    base: Path | None = None,
    workers: int = 1,
    live: LiveTeacher | None = None,
    completer: Completer | None = None,
    progress: ProgressListener | None = None,
) -> DataSet:
    """Build D_0.

    Args:
        recipe: sources, teachers, cleaning and mixing.
        base: folder that relative local paths start from.
        workers: verifier processes.
        live: asks live teachers; needed where the recipe names one.
        completer: writes missing solutions; without one such thoughts are set aside by name.
        progress: told while rows are read and answers verified.
    Raises:
        ConfigError, DataError: as `prepare_problems`; a live teacher without `live`.
    """
    prepared = prepare_problems(recipe.problems, base=base, progress=progress)
    gathered = gather(
        prepared.problems,
        prepared.responses,
        recipe.distil,
        fingerprints=prepared.fingerprints,
        gate=recipe.problems.decontaminate,
        seed=recipe.seed,
        base=base,
        live=live,
    )
    drafts = draft(gathered, recipe.verify, workers=workers, completer=completer, progress=progress)
    refined = clean(drafts.demonstrations, recipe.clean, progress=progress)
    mixture = mix(refined.kept, recipe.mix)
    funnel = Funnel().extend(drafts.funnel).extend(refined.funnel).extend(mixture.funnel)
    return DataSet(
        mixture=mixture,
        prepared=prepared,
        drafts=drafts,
        dropped=dropped_rows([*refined.dropped, *mixture.dropped]),
        funnel=funnel,
    )


# -- gather -----------------------------------------------------------------------------------


def gather(
    problems: Sequence[Problem],
    responses: Sequence[RawResponse],
    distil: DistilRecipe,
    *,
    fingerprints: Sequence[Fingerprint] = (),
    gate: DecontaminateRecipe | None = None,
    seed: int = 0,
    base: Path | None = None,
    live: LiveTeacher | None = None,
) -> Gathered:
    """Every teacher's raw responses to problems that training may use.

    Args:
        problems: prepared problems.
        responses: what came with their sources.
        distil: the teachers.
        fingerprints: of the benchmarks; problems that only a teacher's file brings are checked too.
        gate: how overlap is decided.
        seed: of scripted teachers.
        base: folder that relative local paths start from.
        live: asks live teachers.
    """
    pool = _Pool(problems, fingerprints, gate or DecontaminateRecipe())
    by_teacher: list[tuple[Teacher, list[RawResponse]]] = []
    aside: list[SetAside] = []
    num_read = 0
    for teacher in distil.teachers:
        read = _responses_of(teacher, problems, responses, seed, base, live)
        num_read += len(read)
        placed, lost = pool.place(read)
        aside.extend(lost)
        if teacher.kind == "file":
            placed, surplus = _first_of_each(placed, teacher.responses_per_problem)
            aside.extend(surplus)
        by_teacher.append((teacher, placed))
    return Gathered(by_teacher=by_teacher, set_aside=aside, num_read=num_read)


def _responses_of(
    teacher: Teacher,
    problems: Sequence[Problem],
    responses: Sequence[RawResponse],
    seed: int,
    base: Path | None,
    live: LiveTeacher | None,
) -> list[RawResponse]:
    if teacher.kind == "scripted":
        from still_core.miniature.teachers import distil as write

        draws = range(teacher.responses_per_problem)
        return [one for draw in draws for one in write(problems, teacher.source, seed=seed + draw)]
    if teacher.kind != "file":
        if live is None:
            raise ConfigError(
                explain(
                    f"teacher {teacher.name!r} is a live model",
                    got=teacher.kind,
                    remedy="run the flow, or name a file of its responses",
                )
            )
        return live(teacher, problems)
    with_source = [one for one in responses if one.problem.source == teacher.source]
    if with_source:
        return [replace(one, teacher=one.teacher or teacher.name) for one in with_source]
    found = read_teacher_file(teacher, base=base)
    return found.responses


def read_teacher_file(teacher: Teacher, *, base: Path | None = None) -> Collection:
    """Problems and responses of a teacher's file.

    `source` is `ADAPTER@PATH`, or a hub data set whose adapter is known by its name.

    Raises:
        ConfigError: no adapter is named or known.
        DataError: malformed rows, or none with a response.
    """
    name, at, path = teacher.source.partition("@")
    if not at or name not in ADAPTERS:
        path = teacher.source
        hub = path.removeprefix("hf:").split("?", 1)[0]
        name = next((one.name for one in ADAPTERS.values() if one.hub and one.hub == hub), "")
    if not name:
        raise ConfigError(
            explain(
                f"teacher {teacher.name!r} has a source of unknown form",
                got=teacher.source,
                expected="the name of a problem source with responses, or ADAPTER@PATH",
            )
        )
    spec = SourceSpec(name=teacher.name, adapter=name, path=path, teacher=teacher.name)
    found = collect([spec], base=base)
    if not found.responses:
        raise DataError(explain(f"no responses in the file of teacher {teacher.name!r}", got=path))
    return found


class _Pool:
    """Problems that responses may belong to: prepared ones, else clean ones of a teacher's own."""

    def __init__(
        self,
        problems: Sequence[Problem],
        fingerprints: Sequence[Fingerprint],
        gate: DecontaminateRecipe,
    ) -> None:
        self._ids = {problem.id for problem in problems}
        self._prints = {fingerprint(problem).exact: problem for problem in problems}
        self._benchmarks = fingerprints
        self._gate = gate

    def place(self, read: Sequence[RawResponse]) -> tuple[list[RawResponse], list[SetAside]]:
        """Responses with their problem; where a prepared problem reads the same, with that one."""
        foreign = {one.problem.id: one.problem for one in read if one.problem.id not in self._ids}
        report = match_fingerprints(list(foreign.values()), self._benchmarks, recipe=self._gate)
        overlapping = {one.problem: one.benchmark for one in reversed(report.overlaps)}
        placed, aside = [], []
        for one in read:
            if one.problem.id in self._ids:
                placed.append(one)
            elif one.problem.id in overlapping:
                aside.append(_aside(one, "no_problem", f"overlap:{overlapping[one.problem.id]}"))
            else:
                same = self._prints.get(fingerprint(one.problem).exact)
                placed.append(replace(one, problem=same) if same else one)
        return placed, aside


def _first_of_each(
    read: Sequence[RawResponse], limit: int
) -> tuple[list[RawResponse], list[SetAside]]:
    """The first responses of each problem, up to the teacher's limit."""
    seen: Counter[str] = Counter()
    kept, aside = [], []
    for one in read:
        seen[one.problem.digest] += 1
        if seen[one.problem.digest] <= limit:
            kept.append(one)
        else:
            aside.append(_aside(one, "surplus", "responses_per_problem"))
    return kept, aside


def _aside(one: RawResponse, rule: str, reason: str, detail: str = "") -> SetAside:
    return SetAside(
        response=one.id,
        problem=one.problem.id,
        source_file=one.source_file,
        row=one.row,
        teacher=one.teacher,
        rule=rule,
        reason=reason,
        detail=detail,
    )


# -- draft ------------------------------------------------------------------------------------


def draft(
    gathered: Gathered,
    verify: VerifyRecipe,
    *,
    workers: int = 1,
    completer: Completer | None = None,
    progress: ProgressListener | None = None,
) -> Drafts:
    """Unify and judge raw responses.

    Without a completer, thoughts that lack a solution come out as `incomplete`.
    """
    whole: list[tuple[RawResponse, Unified]] = []
    incomplete: list[tuple[RawResponse, Unified]] = []
    aside = list(gathered.set_aside)
    funnel = Funnel().step(
        "gather",
        gathered.num_read - len(aside),
        Counter(f"{one.rule}:{one.reason}" for one in aside),
    )
    for teacher, raws in gathered.by_teacher:
        sources = [f"{raw.source_file} {raw.teacher}" for raw in raws]
        unified = unify_all(raws, teacher.style, sources=sources)
        for raw, one in zip(raws, unified, strict=True):
            if one.defect is not None:
                aside.append(_aside(raw, "format", str(one.defect.kind), one.defect.detail))
            else:
                (incomplete if one.needs_solution else whole).append((raw, one))
    if completer is not None and incomplete:
        finished, failed = _completed(incomplete, completer)
        whole.extend(finished)
        aside.extend(failed)
        incomplete = []
    reasons = Counter(one.reason for one in aside[len(gathered.set_aside) :])
    reasons["needs_solution"] += len(incomplete)
    funnel.step("unify", len(whole), reasons)
    return Drafts(
        demonstrations=judge(whole, verify, workers=workers, progress=progress),
        incomplete=incomplete,
        set_aside=aside,
        funnel=funnel,
    )


def _completed(
    incomplete: Sequence[tuple[RawResponse, Unified]], completer: Completer
) -> tuple[list[tuple[RawResponse, Unified]], list[SetAside]]:
    finished, failed = [], []
    for (raw, _), one in zip(incomplete, completer(incomplete), strict=True):
        if one.response is not None:
            finished.append((raw, one))
        else:
            kind = str(one.defect.kind) if one.defect else "needs_solution"
            failed.append(_aside(raw, "format", kind, one.defect.detail if one.defect else ""))
    return finished, failed


def judge(
    whole: Sequence[tuple[RawResponse, Unified]],
    verify: VerifyRecipe,
    *,
    workers: int = 1,
    progress: ProgressListener | None = None,
) -> list[Demonstration]:
    """Label every response right or wrong by the verifier, in order."""
    from still_core.verify import Answer, VerifierPool

    answers = [
        Answer(
            id=raw.id,
            gold=raw.problem.gold,
            pred=one.response.solution,
            kind=raw.problem.kind,
            choices=raw.problem.choices,
        )
        for raw, one in whole
        if one.response is not None
    ]
    with VerifierPool(
        workers=workers, deadline_s=verify.deadline_s, conventions=verify.conventions
    ) as pool:
        verdicts = pool.verify_many(answers, progress)
    return [
        distilled(raw, one.response, verdict)
        for (raw, one), verdict in zip(whole, verdicts, strict=True)
        if one.response is not None
    ]


# -- publish ----------------------------------------------------------------------------------


def publish_dataset(
    store: Store, dataset: DataSet, recipe: Still2Recipe, *, files: Mapping[str, str] | None = None
) -> Handle:
    """Publish D_0 as `data/<recipe name>`: demonstrations in `data.parquet`, accounts beside them.

    Args:
        store: where to.
        dataset: what `build_dataset` made.
        recipe: its recipe; part of the version.
        files: content digest of every file that was read; part of the version.
    """
    version = dataset_version(recipe, files or {})
    prepared = dataset.prepared
    tables: dict[str, Iterable[Mapping[str, Any]]] = {
        "data": [row.to_row() for row in dataset.mixture.kept],
        "problems": [problem.to_row() for problem in prepared.problems],
        "fingerprints": [one.to_row() for one in prepared.fingerprints],
        "funnel": _funnel_rows(dataset),
        "sources": [_source_row(one) for one in prepared.counts],
        "overlap": [
            {**row, "dropped": prepared.num_overlapping.get(str(row["benchmark"]), 0)}
            for row in prepared.overlap.to_rows()
        ],
        "shares": [asdict(share) for share in dataset.mixture.shares],
        "dropped": dataset.dropped,
        "dropped_problems": [one.to_row() for one in prepared.dropped],
        "set_aside": [
            *(asdict(one) for one in dataset.drafts.set_aside),
            *(
                asdict(_aside(raw, "needs_solution", "needs_solution"))
                for raw, _ in dataset.drafts.incomplete
            ),
        ],
        "quarantined": [one.to_row() for one in prepared.quarantined],
    }
    meta = {
        "kind": "dataset",
        "recipe": recipe.model_dump(mode="json"),
        "rules": rules_meta(recipe.clean),
        "files": dict(files or {}),
        "waiver": prepared.overlap.waiver,
        "mean_thought_length": dataset.mixture.mean_thought_length,
        "length_unit": dataset.mixture.length_unit,
    }
    return publish_tables(store, f"data/{recipe.name}", version, tables, meta=meta)


def dataset_version(recipe: Still2Recipe, files: Mapping[str, str]) -> str:
    """Version by identity: equal sections and equal files give the same data set."""
    sections = [recipe.problems, recipe.distil, recipe.clean, recipe.mix, recipe.verify]
    return digest([DATASET_VERSION, recipe.seed, sections, dict(files)])


def _funnel_rows(dataset: DataSet) -> list[dict[str, Any]]:
    parts = (("problems", dataset.prepared.funnel), ("responses", dataset.funnel))
    return [{"part": part, **row} for part, funnel in parts for row in funnel.to_rows()]


def _source_row(count: SourceCount) -> dict[str, Any]:
    return {
        "source": count.source,
        "rows_in": count.rows_in,
        "kept": count.kept,
        "quarantined": sum(count.quarantined.values()),
        "left_out": sum(count.filtered.values()),
        "reasons": ", ".join(
            f"{name} {n}" for name, n in {**count.quarantined, **count.filtered}.items()
        ),
    }
