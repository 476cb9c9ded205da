"""Explore: roll out until correct, verify, bank; turn what was found into candidates."""

from __future__ import annotations

from collections.abc import Iterator

from still_core.problems.pool import PoolRecipe
from still_core.recipes.recipe import Resources
from still_core.refine.recipe import PerplexitySource
from still_core.report.text import cell, fenced
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe
from still_core.store import Handle, Store
from still_core.verify.answer import VERIFIER_VERSION
from still_core.verify.recipe import VerifyRecipe
from tasks.artifacts import Shown, markdown, table
from tasks.engines import make_room
from tasks.listening import listener
from tasks.planning import is_pending
from tasks.stage import stage


def show_exploration(store: Store, exploration: Handle) -> Iterator[Shown]:
    """Pass rate by attempt and by difficulty, and rollouts to read."""
    from still_core.rollout.found import read_exploration, solved_by_level

    found = read_exploration(store, exploration)
    yield table("attempts", found.attempts, "Pass rate by attempt")
    yield table("solved", solved_by_level(found.groups), "Problems solved by difficulty")
    pages = [
        f"**{cell(r['problem_id'])}: {r['outcome']}, attempt {r['sample_index'] + 1}**\n\n"
        f"{fenced(r['text'])}"
        for r in found.samples[:12]
    ]
    yield markdown("sample-rollouts", "\n\n".join(pages) or "none", "Rollouts to read")


@stage(version="2026.11.21", uses=(VERIFIER_VERSION,), show=show_exploration)
def explore_problems(
    store: Store,
    version: str,
    *,
    policy: Handle,
    problems: Handle,
    explorations: list[Handle],
    pool: PoolRecipe,
    explore: ExploreRecipe,
    engine: EngineRecipe,
    verify: VerifyRecipe,
    prompt: str,
    round: int,
    seed: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Roll out the policy on this round's problems until one response each is correct."""
    from still_core.problems.tables import read_problems
    from still_core.rollout.bank import RolloutBank
    from still_core.rollout.explore import explore as explore_pool
    from still_core.rollout.found import draw_problems, publish_exploration
    from tasks.engines import rollout_pool, verifier_pool

    draw = draw_problems(store, read_problems(store, problems), pool, explorations, seed=seed)
    with verifier_pool(verify, resources) as verifier:
        exploration = explore_pool(
            draw.problems,
            rollout_pool(store, policy, engine, resources, policy_version=round),
            RolloutBank(store),
            verifier,
            explore,
            resources.rollout,
            seed=seed,
            round=round,
            prompt=prompt,
            owner=f"{run}/explore-{round}",
            progress=listener(store, run),
        )
    return publish_exploration(
        store, "explore-problems", version, exploration, round=round, left=draw.left
    )


def show_candidates(store: Store, candidates: Handle) -> Iterator[Shown]:
    """What the format let through, and candidates by perplexity."""
    from still_core.distil.shown import perplexity_histogram
    from still_core.store.bundle import read_rows_of

    yield table(
        "funnel", read_rows_of(store, candidates, "funnel"), "in = kept + dropped, by reason"
    )
    rows = perplexity_histogram(store.read_rows(candidates))
    yield table("perplexity", rows, "Candidates by perplexity under the model that found them")


@stage(version="2026.11.21", show=show_candidates)
def score_candidates(
    store: Store,
    version: str,
    *,
    policy: Handle,
    exploration: Handle,
    problems: Handle,
    prompt: str,
    dtype: str,
    perplexity_source: PerplexitySource,
    round: int,
    resources: Resources,
    run: str,
) -> Handle:
    """The correct, well-formed responses as candidates, scored by the model that found them."""
    from still_core.problems.tables import read_problems
    from still_core.rollout.candidates import candidates_of
    from still_core.store.bundle import publish_tables

    make_room(resources)
    candidates, funnel = candidates_of(
        store,
        exploration,
        read_problems(store, problems),
        policy,
        prompt=prompt,
        round=round,
        dtype=dtype,
        resources=resources.train,
        perplexity_source=perplexity_source,
        progress=listener(store, run),
    )
    tables = {"data": [row.to_row() for row in candidates], "funnel": funnel.to_rows()}
    return publish_tables(store, "score-candidates", version, tables)


def require_problems(store: str, problems: Handle, pool: PoolRecipe) -> None:
    """Refuse rounds over an empty pool before any model work; not while that is not known.

    Raises:
        DataError: no problem belongs to the pool.
    """
    from still_core.problems.pool import require_pool
    from still_core.problems.tables import read_problems

    if not is_pending(problems):
        require_pool(read_problems(Store(store), problems), pool)


def pool_is_exhausted(store: str, exploration: Handle, pool: PoolRecipe) -> bool:
    """Whether the next round would explore nothing; no while that is not known."""
    if is_pending(exploration):
        return False
    meta = Store(store).manifest(exploration).meta
    again = meta["unsolved"] if pool.retry_unsolved else 0
    return bool(meta["left"] + again == 0)
