"""D_0 from a recipe in one call, without a flow: what `still data build` runs.

prepare_problems -> gather -> unify -> verify -> clean -> mix -> published data set
(STILL-2 section 2.2). The stages are the flow's own (`still_core.distil`). Completing the solutions
of thoughts that have none needs a trained model and so the flow; they are counted here as
`needs_solution`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from still_core.distil.dataset import build_d0, publish_dataset
from still_core.distil.drafts import (
    AskTeacher,
    Draft,
    DraftState,
    demonstrations_of,
    distil_drafts,
    draft_funnel,
)
from still_core.identity import digest
from still_core.problems.collect import SourceCount
from still_core.problems.places import pinned
from still_core.problems.prepare import Prepared, prepare_problems
from still_core.progress import ProgressListener
from still_core.recipes.recipe import Still2Recipe
from still_core.refine.funnel import Funnel
from still_core.store.handle import Handle
from still_core.store.store import Store
from still_core.verify import VERIFIER_VERSION, VerifierPool

DATASET_VERSION = "2026.11.22"
"""Part of a data set's version; changed whenever the same recipe would give other rows."""


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
        recipe: its problems, distil, clean, mix and verify sections and the seed are read, and
            its engine where a teacher is a local model.
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
        drafts = distil_drafts(
            recipe.distil,
            prepared.problems,
            prepared.responses,
            pool,
            seed=recipe.seed,
            ask=ask,
            progress=progress,
        )
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
    """Version by identity: equal sections and equal files give the same data set; the engine
    counts where it draws the responses."""
    sections = [recipe.problems, recipe.distil, recipe.clean, recipe.mix, recipe.verify]
    if recipe.distil.local_models():
        sections.append(recipe.engine)
    return digest([DATASET_VERSION, VERIFIER_VERSION, recipe.seed, sections, dict(files)])


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
