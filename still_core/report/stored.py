"""A report composed from the artefacts of a run, and kept as one.

problems, data sets, models, explorations, scores -> ReportData -> report.json in the store
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from still_core.evaluate.answers import EvaluatedAnswer
from still_core.evaluate.run import ThoughtCheck
from still_core.problems.problem import Problem
from still_core.problems.tables import read_problems
from still_core.recipes.recipe import Still2Recipe
from still_core.refine.funnel import Funnel
from still_core.report.build import (
    ModelEvaluation,
    build_difficulty_rates,
    build_rows,
    choose_samples,
    model_labels,
)
from still_core.report.claims import paper_claims
from still_core.report.data import (
    AttemptRate,
    BenchmarkOverlap,
    Curve,
    ExploreRound,
    FunnelTable,
    ReportData,
    UnsolvedProblem,
)
from still_core.responses.prompts import prompt
from still_core.responses.response import Response
from still_core.rollout.found import read_exploration
from still_core.store import Handle, Store
from still_core.store.bundle import read_rows_of

FILE = "report.json"
METHODS = {"sft": "SFT", "dpo": "SFT & DPO"}
"""Names of STILL-2's Table 2, by what a data set trains with."""


def compose(
    store: Store,
    recipe: Still2Recipe,
    *,
    problems: Handle,
    drafts: Sequence[Handle],
    data_sets: Sequence[Handle],
    models: Sequence[Handle],
    explorations: Sequence[Handle],
    finds: Sequence[Handle],
    scores: Sequence[Handle],
    thought_check: ThoughtCheck,
) -> ReportData:
    """Everything that the report says but the times of the stages.

    Args:
        store: where the artefacts are.
        recipe: of the run.
        problems: collected problems and benchmarks.
        drafts: unified and completed responses.
        data_sets: D_0, and what each round's model was trained on: D_1, ... or pairs.
        models: M_1, M_2, ..., each trained on the data set of its place.
        explorations: rounds 1, 2, ...
        finds: what each round found that can be taught: candidates, or siblings for pairs.
        scores: answers of the backbone, M_1, M_2, ...
        thought_check: tells sound thoughts from lucky ones, where the domain allows it.
    """
    known = {problem.digest: problem for problem in read_problems(store, problems)}
    evaluations = _evaluations(store, data_sets, scores)
    data = ReportData(
        run=recipe.run_name(),
        recipe_name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        rows=build_rows(evaluations),
        funnels=_funnels(store, problems, drafts, data_sets, finds),
        difficulty_rates=build_difficulty_rates(evaluations),
        explorations=tuple(
            _exploration(store, handle, recipe, known, thought_check) for handle in explorations
        ),
        unsolved=_unsolved(store, explorations, known),
        overlaps=tuple(
            BenchmarkOverlap(
                benchmark=row["benchmark"],
                benchmark_problems=row["benchmark_problems"],
                training_problems=row["training_problems"] + row["dropped"],
                removed=row["dropped"],
                left=row["overlapping"],
            )
            for row in read_rows_of(store, problems, "overlap")
        ),
        curves=tuple(
            Curve.from_metrics(label, _metrics(store, model))
            for label, model in zip(model_labels(evaluations)[1:], models, strict=True)
        ),
        samples=choose_samples(evaluations),
        notes=_notes(store, problems),
    )
    return replace(data, claims=tuple(paper_claims(data)))


def report_bytes(data: ReportData) -> bytes:
    """Canonical JSON of the report."""
    return (json.dumps(data.to_json(), indent=1, allow_nan=False) + "\n").encode()


def read_report(store: Store, handle: Handle) -> ReportData:
    """The report behind the handle."""
    return ReportData.from_json(json.loads(store.read_bytes(handle, FILE)))


def _evaluations(
    store: Store, data_sets: Sequence[Handle], scores: Sequence[Handle]
) -> list[ModelEvaluation]:
    d0 = store.manifest(data_sets[0]).meta
    counts = [("Backbone", 0, 0, 0)]
    for round, handle in enumerate(data_sets):
        # Pairs train M_1, which D_0 has made.
        meta = {"distilled": d0["distilled"], "method": "sft", **store.manifest(handle).meta}
        counts.append((METHODS[meta["method"]], meta["distilled"], meta["explored"], round))
    return [
        ModelEvaluation(
            method=method,
            distill=distilled,
            explore=explored,
            round=round,
            answers=tuple(EvaluatedAnswer.from_row(row) for row in store.read_rows(answers)),
        )
        for (method, distilled, explored, round), answers in zip(counts, scores, strict=True)
    ]


def _funnels(
    store: Store,
    problems: Handle,
    drafts: Sequence[Handle],
    data_sets: Sequence[Handle],
    finds: Sequence[Handle],
) -> tuple[FunnelTable, ...]:
    named = [("problems", problems), *zip(("drafts", "completed drafts"), drafts, strict=False)]
    named += [("D_0", data_sets[0])]
    for round, (found, refined) in enumerate(zip(finds, data_sets[1:], strict=True), 1):
        if store.manifest(refined).meta.get("method") == "dpo":
            named += [
                (f"siblings of round {round}", found),
                (f"pairs after round {round}", refined),
            ]
        else:
            named += [(f"candidates of round {round}", found), (f"D_{round}", refined)]
    return tuple(
        FunnelTable.of(name, Funnel.from_rows(read_rows_of(store, handle, "funnel")))
        for name, handle in named
    )


def _exploration(
    store: Store,
    handle: Handle,
    recipe: Still2Recipe,
    known: dict[str, Problem],
    thought_check: ThoughtCheck,
) -> ExploreRound:
    found = read_exploration(store, handle)
    meta = store.manifest(handle).meta
    asked = prompt(recipe.backbone.prompt)
    read = [(row, asked.read_completion(row["text"])) for row in found.samples]
    sound = [
        thought_check(known[row["problem_digest"]], response)
        for row, response in read
        if isinstance(response, Response)
    ]
    checked = [verdict for verdict in sound if verdict is not None]
    return ExploreRound(
        round=found.round,
        problems=meta["problems"],
        solved=meta["solved"],
        rollouts=meta["attempts"],
        max_attempts=recipe.explore.max_attempts,
        attempts=tuple(
            AttemptRate(
                attempt=row["attempt"],
                tried=row["tried"],
                solved=row["correct"],
                rate=row["pass_rate"],
                cumulative=row["solved_so_far"],
            )
            for row in found.attempts
        ),
        outcomes=dict(meta["outcomes"]),
        lucky_checked=len(checked),
        lucky=checked.count(False),
    )


def _unsolved(
    store: Store, explorations: Sequence[Handle], known: dict[str, Problem]
) -> tuple[UnsolvedProblem, ...]:
    attempts: dict[str, int] = {}
    solved: set[str] = set()
    for handle in explorations:
        for row in read_exploration(store, handle).groups:
            digest = row["problem_digest"]
            attempts[digest] = attempts.get(digest, 0) + row["attempts"]
            if row["solved"]:
                solved.add(digest)
    return tuple(
        UnsolvedProblem(
            problem_id=problem.id,
            statement=problem.statement,
            gold=problem.gold,
            domain=problem.domain,
            difficulty=problem.level,
            attempts=attempts[problem.digest],
        )
        for problem in sorted((known[d] for d in set(attempts) - solved), key=lambda p: p.id)
    )


def _metrics(store: Store, model: Handle) -> list[dict[str, Any]]:
    lines = store.read_bytes(model, "metrics.jsonl").decode().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _notes(store: Store, problems: Handle) -> tuple[str, ...]:
    meta = store.manifest(problems).meta
    notes = []
    if meta["quarantined"]:
        notes.append(f"{meta['quarantined']} malformed rows were quarantined with file and line.")
    if meta["waiver"]:
        notes.append(f"Overlap with a benchmark was waived: {meta['waiver']}")
    return tuple(notes)
