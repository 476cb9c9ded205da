"""Preferences: siblings scored by the model that DPO starts from, and paired."""

from __future__ import annotations

from collections.abc import Iterator

from still_core.recipes.recipe import Resources
from still_core.refine.recipe import RULES_VERSION, CleanRecipe, PairRecipe
from still_core.report.text import cell, fenced
from still_core.store import Handle, Store
from tasks.artifacts import Shown, markdown, table
from tasks.engines import make_room
from tasks.explore import show_candidates
from tasks.listening import listener
from tasks.stage import stage

SHOWN_PAIRS = 3


@stage(version="2026.11.21", show=show_candidates)
def score_siblings(
    store: Store,
    version: str,
    *,
    start: Handle,
    exploration: Handle,
    problems: Handle,
    prompt: str,
    dtype: str,
    round: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Correct and wrong responses to one problem, scored by the model that DPO starts from."""
    from still_core.problems.tables import read_problems
    from still_core.rollout.candidates import siblings_of
    from still_core.store.bundle import publish_tables

    make_room(resources)
    siblings, funnel = siblings_of(
        store,
        exploration,
        read_problems(store, problems),
        start,
        prompt=prompt,
        round=round,
        dtype=dtype,
        resources=resources.train,
        progress=listener(store, run),
    )
    tables = {"data": [row.to_row() for row in siblings], "funnel": funnel.to_rows()}
    return publish_tables(store, "score-siblings", version, tables)


def show_pairs(store: Store, pairs: Handle) -> Iterator[Shown]:
    """The funnel, and pairs to read with what the model finds hard and easy in them."""
    from still_core.distil.preferences import read_pairs
    from still_core.responses.format import render_response
    from still_core.responses.response import Response
    from still_core.store.bundle import read_rows_of

    yield table("funnel", read_rows_of(store, pairs, "funnel"), "Responses: in = kept + dropped")
    found = read_pairs(store, pairs)
    rows = [
        {
            "problem": pair.chosen.problem_id,
            "chosen perplexity": pair.chosen.perplexity,
            "rejected perplexity": pair.rejected.perplexity,
            "rejected verdict": pair.rejected.verdict,
        }
        for pair in found
    ]
    yield table("pairs", rows, "Chosen: correct and hard; rejected: wrong and easy")
    pages = []
    for pair in found[:SHOWN_PAIRS]:
        pages.append(
            f"**{cell(pair.chosen.problem_id)}**\n\n{fenced(pair.chosen.statement, 2_000)}"
        )
        for side, row in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            text = render_response(Response(thought=row.thought, solution=row.solution))
            pages.append(f"{side}, perplexity {row.perplexity:.4g}\n\n{fenced(text)}")
    yield markdown("sample-pairs", "\n\n".join(pages), "Pairs to read")


@stage(version="2026.11.21", uses=(RULES_VERSION,), show=show_pairs)
def build_pairs(
    store: Store,
    version: str,
    *,
    siblings: list[Handle],
    clean: CleanRecipe,
    pairs: PairRecipe,
) -> Handle:
    """Pairs of all rounds so far: correct and hard against wrong and easy, of one problem."""
    from still_core.distil.dataset import read_demonstrations
    from still_core.distil.preferences import build_preferences, publish_preferences

    rows = [row for handle in siblings for row in read_demonstrations(store, handle)]
    found = build_preferences(rows, clean, pairs)
    return publish_preferences(store, "build-pairs", version, found, clean_recipe=clean)
