"""Problems: from sources, past the decontamination gate; measured by pass rate for exploration."""

from __future__ import annotations

from collections.abc import Iterator

from still_core.errors import DataError, explain
from still_core.problems.pool import DifficultyRecipe, PoolRecipe
from still_core.problems.recipe import ProblemsRecipe
from still_core.recipes.recipe import Resources
from still_core.rollout.recipe import EngineRecipe
from still_core.rollout.rollout import Sampling
from still_core.store import Handle, Store
from still_core.verify.answer import VERIFIER_VERSION
from still_core.verify.recipe import VerifyRecipe
from tasks.artifacts import Shown, table
from tasks.listening import listener
from tasks.planning import is_pending
from tasks.stage import stage


def show_problems(store: Store, problems: Handle) -> Iterator[Shown]:
    """The funnel, overlap with the benchmarks, and malformed rows by file and line."""
    from still_core.store.bundle import read_rows_of

    yield table(
        "problem-funnel", read_rows_of(store, problems, "funnel"), "Problems: in = kept + dropped"
    )
    yield table("overlap", read_rows_of(store, problems, "overlap"), "Overlap with the benchmarks")
    malformed = read_rows_of(store, problems, "quarantined")
    if malformed:
        yield table(
            "quarantined", malformed[:200], f"{len(malformed)} malformed rows, by file and line"
        )


@stage(version="2026.11.22", show=show_problems)
def collect_problems(
    store: Store, version: str, *, problems: ProblemsRecipe, files: dict[str, str], run: str
) -> Handle:
    """Read every source and benchmark, filter, decontaminate; refuse what overlaps."""
    from still_core.problems.places import pinned
    from still_core.problems.prepare import prepare_problems
    from still_core.problems.tables import publish_prepared

    prepared = prepare_problems(pinned(problems, files), progress=listener(store, run))
    return publish_prepared(store, "collect-problems", version, prepared, problems)


def require_rated(store: str, rated: Handle, window: DifficultyRecipe) -> None:
    """Refuse to explore nothing; not while that is not known.

    Raises:
        DataError: no problem's pass rate lies in the window.
    """
    from still_core.store.bundle import read_rows_of

    if is_pending(rated) or read_rows_of(Store(store), rated, "problems"):
        return
    funnel = read_rows_of(Store(store), rated, "funnel")
    raise DataError(
        explain(
            "no problem's pass rate under M_1 lies in the window",
            got={row["reason"]: row["num_dropped"] for row in funnel if row["reason"]},
            expected=f"{window.min_pass_rate:g} to {window.max_pass_rate:g} of "
            f"{window.attempts} attempts",
            remedy="widen pool.difficulty, or set its attempts to 0",
        )
    )


def show_rates(store: Store, rated: Handle) -> Iterator[Shown]:
    """Problems by how often they were solved, and what the window dropped."""
    from still_core.problems.difficulty import rate_histogram
    from still_core.store.bundle import read_rows_of

    rows = rate_histogram(read_rows_of(store, rated, "rates"))
    yield table("pass-rates", rows, "Problems of the pool by correct attempts")
    yield table(
        "difficulty-funnel", read_rows_of(store, rated, "funnel"), "in = kept + dropped, by reason"
    )


@stage(version="2026.11.21", uses=(VERIFIER_VERSION,), show=show_rates)
def rate_problems(
    store: Store,
    version: str,
    *,
    problems: Handle,
    policy: Handle,
    pool: PoolRecipe,
    sampling: Sampling,
    engine: EngineRecipe,
    verify: VerifyRecipe,
    prompt: str,
    seed: int,
    policy_version: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Measure the pass rate of the pool's problems; keep those inside the recipe's window."""
    from still_core.problems.difficulty import measured_rates, rate_rows, within_window
    from still_core.problems.tables import read_problems
    from still_core.rollout.bank import RolloutBank
    from still_core.rollout.sample import sample
    from still_core.store.bundle import publish_tables
    from tasks.engines import rollout_pool, verifier_pool

    eligible = [problem for problem in read_problems(store, problems) if pool.holds(problem)]
    with verifier_pool(verify, resources) as verifier:
        rates = measured_rates(
            sample(
                eligible,
                rollout_pool(store, policy, engine, resources, policy_version=policy_version),
                RolloutBank(store),
                verifier,
                sampling,
                num_samples=pool.difficulty.attempts,
                seed=seed,
                prompt=prompt,
                owner=f"{run}/rate",
                stage="measure pass rates",
                keeps_texts=False,
                progress=listener(store, run),
            )
        )
    found = within_window(eligible, rates, pool.difficulty)
    tables = {
        "problems": [problem.to_row() for problem in found.kept],
        "rates": rate_rows(eligible, rates),
        "dropped": [one.to_row() for one in found.dropped],
        "funnel": found.funnel.to_rows(),
    }
    return publish_tables(store, "rate-problems", version, tables)
