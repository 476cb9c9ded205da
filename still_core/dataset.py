"""D_0 from a recipe in one call, without a flow: what `still data build` runs.

prepare_problems -> gather -> unify -> verify -> clean -> mix -> published data set
(STILL-2 section 2.2). The stages are the flow's own (`still_core.distil`). Completing the solutions
of thoughts that have none needs a trained model and so the flow; they are counted here as
`needs_solution`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from still_core.distil.dataset import build_d0, publish_dataset, read_demonstrations
from still_core.distil.drafts import (
    Draft,
    DraftState,
    demonstrations_of,
    draft,
    draft_funnel,
    gather_responses,
    judge_drafts,
)
from still_core.distil.preferences import read_pairs
from still_core.errors import ConfigError, DataError, MissingError, explain
from still_core.identity import digest
from still_core.problems.collect import SourceCount
from still_core.problems.places import pinned
from still_core.problems.prepare import Prepared, prepare_problems
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.progress import ProgressListener
from still_core.recipes.recipe import Still2Recipe
from still_core.refine.clean import Refined
from still_core.refine.funnel import Funnel
from still_core.refine.lineage import dropped_from_rows, trace
from still_core.refine.recipe import Teacher
from still_core.responses.response import Demonstration
from still_core.store.bundle import read_rows_of
from still_core.store.handle import Handle
from still_core.store.store import Store
from still_core.verify import VERIFIER_VERSION, VerifierPool

DATASET_VERSION = "2026.11.21.3"
"""Part of a data set's version; changed whenever the same recipe would give other rows."""

AskTeacher = Callable[[Teacher, Sequence[Problem], VerifierPool], list[RawResponse]]
"""Draws a live teacher's responses to the problems; the bank is read first."""


def build_dataset(
    recipe: Still2Recipe,
    store: Store,
    *,
    base: Path | None = None,
    files: Mapping[str, str] | None = None,
    workers: int = 1,
    ask: AskTeacher | None = None,
    progress: ProgressListener | None = None,
) -> Handle:
    """Build D_0 and publish it as `data/<recipe name>`.

    Args:
        recipe: its problems, distil, clean, mix and verify sections and the seed are read.
        store: where to; an equal data set that stands there is returned as it is.
        base: folder that relative local paths start from.
        files: content digest of every file that is read; part of the version.
        workers: verifier processes.
        ask: how to ask live teachers.
        progress: told while rows are read, teachers asked and answers verified.
    Returns:
        `data.parquet` holds the demonstrations. Beside it: problems, responses that are no
        demonstration, rows dropped with their rule, quarantined rows with file and line, funnels,
        overlap and fingerprints of the benchmarks.
    Raises:
        ConfigError: a source that is not there; a live teacher and no way to ask it.
        DataError: an unreadable file, overlap above the threshold, or nothing left to train on.
    """
    store.check_writable()
    sources = pinned(recipe.problems, files or {})
    prepared = prepare_problems(sources, base=base, progress=progress)
    with VerifierPool(
        workers=workers,
        deadline_s=recipe.verify.deadline_s,
        conventions=recipe.verify.conventions,
    ) as pool:
        drafts = _drafts(recipe, prepared, pool, ask)
        drafts = judge_drafts(drafts, pool, progress=progress)
    dataset = build_d0(demonstrations_of(drafts), recipe.clean, recipe.mix)
    return publish_dataset(
        store,
        f"data/{recipe.name}",
        dataset_version(recipe, files or {}),
        dataset,
        clean_recipe=recipe.clean,
        tables=_accounts(prepared, drafts),
    )


def dataset_version(recipe: Still2Recipe, files: Mapping[str, str]) -> str:
    """Version by identity: equal sections and equal files give the same data set."""
    sections = [recipe.problems, recipe.distil, recipe.clean, recipe.mix, recipe.verify]
    return digest([DATASET_VERSION, VERIFIER_VERSION, recipe.seed, sections, dict(files)])


def _drafts(
    recipe: Still2Recipe, prepared: Prepared, verifier: VerifierPool, ask: AskTeacher | None
) -> list[Draft]:
    known, written = prepared.problems, prepared.responses
    drafts: list[Draft] = []
    for teacher in recipe.distil.teachers:
        if teacher.kind in ("file", "scripted"):
            raws = gather_responses(teacher, known, written, seed=recipe.seed)
        elif ask is not None:
            raws = ask(teacher, known, verifier)
        else:
            raise ConfigError(
                explain(
                    f"teacher {teacher.name!r} is a live model that nobody can ask here",
                    got=teacher.kind,
                    expected="file or scripted",
                )
            )
        drafts += draft(raws, teacher.style)
    return drafts


def _accounts(prepared: Prepared, drafts: list[Draft]) -> dict[str, list[dict[str, Any]]]:
    """The tables beside the demonstrations: from any row left out to the rule that left it out."""
    dropped = prepared.num_overlapping
    return {
        "problems": [problem.to_row() for problem in prepared.problems],
        "fingerprints": [one.to_row() for one in prepared.fingerprints],
        "overlap": [
            {**row, "dropped": dropped.get(str(row["benchmark"]), 0)}
            for row in prepared.overlap.to_rows()
        ],
        "sources": [_source_row(count) for count in prepared.counts],
        "quarantined": [one.to_row() for one in prepared.quarantined],
        "left_out": [asdict(one) for one in prepared.left_out],
        "dropped_problems": [one.to_row() for one in prepared.dropped],
        "unfinished": [
            *(_unfinished_row(d) for d in drafts if d.state is not DraftState.COMPLETE),
            *_not_asked_for(prepared, drafts),
        ],
        "funnel_problems": prepared.funnel.to_rows(),
        "funnel_responses": _response_funnel(prepared, drafts).to_rows(),
    }


def _response_funnel(prepared: Prepared, drafts: list[Draft]) -> Funnel:
    """From responses read or written to complete ones."""
    known = {one.id for one in prepared.responses}
    from_files = len({d.raw.id for d in drafts} & known)
    scripted = len(drafts) - from_files
    lost = {
        "problem_dropped": prepared.num_responses_read - len(prepared.responses),
        "not_asked_for": len(prepared.responses) - from_files,
    }
    funnel = Funnel().step("gather", from_files + scripted, lost)
    funnel.extend(draft_funnel("unify", drafts))
    waiting = sum(d.state is DraftState.NEEDS_SOLUTION for d in drafts)
    return funnel.step("complete", funnel.num_kept - waiting, {"needs_solution": waiting})


def _unfinished_row(d: Draft) -> dict[str, Any]:
    return {
        "response": d.raw.id,
        "problem": d.raw.problem.id,
        "source_file": d.raw.source_file,
        "row": d.raw.row,
        "teacher": d.raw.teacher,
        "style": d.style,
        "state": str(d.state),
        "defect": d.defect,
    }


def _not_asked_for(prepared: Prepared, drafts: list[Draft]) -> list[dict[str, Any]]:
    """Responses of files that no teacher of the recipe takes, or beyond the number it takes."""
    taken = {d.raw.id for d in drafts}
    return [
        {
            "response": raw.id,
            "problem": raw.problem.id,
            "source_file": raw.source_file,
            "row": raw.row,
            "teacher": raw.teacher,
            "style": "",
            "state": "not_asked_for",
            "defect": "",
        }
        for raw in prepared.responses
        if raw.id not in taken
    ]


def _source_row(count: SourceCount) -> dict[str, Any]:
    reasons = {**count.quarantined, **count.filtered}
    return {
        **{k: v for k, v in asdict(count).items() if k in ("source", "rows_in", "kept")},
        "quarantined": sum(count.quarantined.values()),
        "left_out": sum(count.filtered.values()),
        "reasons": ", ".join(f"{name} {number}" for name, number in reasons.items()),
    }


# -- looking into a published data set --------------------------------------------------------

FUNNELS = {
    "funnel_problems": "problems: from rows read",
    "funnel_responses": "responses: from what teachers wrote",
    "funnel": "demonstrations: from complete responses",
}
"""Funnel tables of a data set, in the order of the work."""


def find_dataset(uri: str) -> tuple[Store, Handle]:
    """The data set behind a manifest's URI, or the newest one in a store.

    Raises:
        MissingError: there is none.
    """
    root, marker, rest = uri.partition("/manifests/")
    store = Store(root)
    if marker:
        name, _, version = rest.removesuffix(".json").rpartition("/")
        found = store.find(name, version)
    else:
        named = [one for one in store.manifests("") if "data.parquet" in one.objects]
        tables = ("funnel.parquet", "dropped.parquet")
        sets = [one for one in named if all(table in one.objects for table in tables)]
        sets = [one for one in sets if one.meta.get("method") != "dpo"]
        newest = max(sets, key=lambda one: str(one.created_at), default=None)
        found = store.find(newest.name, newest.version) if newest else None
    if found is None:
        raise MissingError(
            explain(
                "no data set there", got=uri, remedy="give the URI that `still data build` said"
            )
        )
    return store, found


def read_funnels(store: Store, handle: Handle) -> dict[str, Funnel]:
    """The data set's funnels by title, in the order of the work."""
    objects = store.manifest(handle).objects
    return {
        title: Funnel.from_rows(read_rows_of(store, handle, table))
        for table, title in FUNNELS.items()
        if f"{table}.parquet" in objects
    }


def responses_of(store: Store, handle: Handle) -> list[Demonstration]:
    """The demonstrations of a data set; of pairs for DPO, both sides, chosen first."""
    if store.manifest(handle).meta.get("method") != "dpo":
        return read_demonstrations(store, handle)
    return [row for pair in read_pairs(store, handle) for row in (pair.chosen, pair.rejected)]


def describe_row(store: Store, handle: Handle, row: str) -> str:
    """What became of one row: its text, where it comes from, and the rules it passed or failed.

    Args:
        store: holds the data set.
        handle: the data set.
        row: number of a demonstration in it, or the id of a demonstration, response or problem.
    Raises:
        DataError: nothing in the data set has that number or id.
    """
    kept = responses_of(store, handle)
    row_id = kept[int(row)].id if row.isdigit() and int(row) < len(kept) else row
    dropped = dropped_from_rows(read_rows_of(store, handle, "dropped"))
    found = {one.id: one for one in (*kept, *(one.row for one in dropped))}
    if row_id in found:
        one = found[row_id]
        refined = Refined(kept=kept, dropped=dropped, funnel=Funnel())
        rules = store.manifest(handle).meta.get("rules", [])
        history = trace(row_id, refined, rules).to_text()
        body = [f"statement     {one.statement}", f"gold          {one.gold}"]
        texts = ["", "thought", one.thought, "", "solution", one.solution]
        return "\n".join([history, *body, *texts])
    return _describe_left_out(store, handle, row_id)


LEFT_OUT = ("unfinished", "drafts", "dropped_problems", "dropped", "left_out", "quarantined")
"""Tables of what became no demonstration: of a data set, and of the stages of a run before it."""


def _describe_left_out(store: Store, handle: Handle, row_id: str) -> str:
    """A response, problem or row of a source that became no demonstration, and why.

    It is searched in the data set, then in all of the store, newest first: in a run, what a stage
    dropped stands with that stage. `source/row#2` is the second response of a row; where it was
    never looked at, its problem's fate is its own.
    """
    newest = sorted(store.manifests(""), key=lambda one: str(one.created_at), reverse=True)
    places = [(handle, store.manifest(handle).objects)]
    for one in newest:
        found = store.find(one.name, one.version)
        if found is not None and found != handle:
            places.append((found, one.objects))
    for wanted in dict.fromkeys((row_id, row_id.split("#", 1)[0])):
        for where, objects in places:
            for table in LEFT_OUT:
                if f"{table}.parquet" not in objects:
                    continue
                for row in read_rows_of(store, where, table):
                    if wanted in _names_of(row):
                        return _fate(where, table, row)
    raise DataError(
        explain("no such row", got=row_id, remedy="give a row number, or an id from the tables")
    )


def _names_of(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row of a table may be called."""
    own = next((row[key] for key in ("response", "id", "problem") if row.get(key)), "")
    place = f"{row['file']}:{row['line']}" if "line" in row else ""
    return str(own), place


def _fate(where: Handle, table: str, row: dict[str, Any]) -> str:
    """Its columns, short ones first; the problem's own are left to the problem."""
    shown = {name: value for name, value in row.items() if not name.startswith("problem_")}
    texts = {name: shown.pop(name) for name in ("text", "reasoning", "thought", "solution")
             if name in shown}  # fmt: skip
    lines = [f"{'table':<18}{table} of {where.name} {where.version}"]
    lines += [f"{name:<18}{value}" for name, value in shown.items() if value not in ("", None)]
    for name, value in texts.items():
        lines += ["", name, str(value)] if value else []
    return "\n".join(lines)
