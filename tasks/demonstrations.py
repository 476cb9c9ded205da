"""Demonstrations: distilled, completed, cleaned and mixed into D_0; refined into D_t."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from still_core.problems.recipe import DecontaminateRecipe
from still_core.recipes.recipe import Resources
from still_core.refine.recipe import (
    RULES_VERSION,
    CleanRecipe,
    DistilRecipe,
    MixRecipe,
    SelectRecipe,
    Teacher,
)
from still_core.report.text import cell, fenced
from still_core.rollout.recipe import EngineRecipe
from still_core.rollout.rollout import Sampling
from still_core.store import Handle, Store
from still_core.verify.answer import VERIFIER_VERSION
from still_core.verify.recipe import VerifyRecipe
from tasks.artifacts import Shown, markdown, table
from tasks.listening import listener
from tasks.planning import is_pending
from tasks.stage import stage

if TYPE_CHECKING:
    from still_core.problems.problem import Problem
    from still_core.problems.raw import RawResponse
    from still_core.verify import VerifierPool


def show_dataset(store: Store, dataset: Handle) -> Iterator[Shown]:
    """The funnel, the mixture, lengths, and examples of what each rule dropped."""
    from still_core.distil.shown import length_histogram
    from still_core.refine.lineage import dropped_from_rows, examples_by_rule
    from still_core.store.bundle import read_rows_of

    yield table("funnel", read_rows_of(store, dataset, "funnel"), "in = kept + dropped, by reason")
    yield table("mixture", read_rows_of(store, dataset, "groups"), "What each group gave")
    yield table("lengths", length_histogram(store.read_rows(dataset)), "Thoughts by length")
    dropped = dropped_from_rows(read_rows_of(store, dataset, "dropped"))
    yield table("dropped", examples_by_rule(dropped), "Examples of what each rule dropped")


def show_drafts(store: Store, drafts: Handle) -> Iterator[Shown]:
    """What the teachers wrote: states and verdicts, and one response of each habit to read."""
    from still_core.distil.shown import draft_counts, first_of_each_style
    from still_core.store.bundle import read_rows_of

    rows = read_rows_of(store, drafts, "drafts")
    yield table("drafts", draft_counts(rows), "Responses by teacher, habit, state and verdict")
    pages = [
        f"**{r['style']}, {cell(r['teacher'])}**\n\n{fenced(r['text'])}"
        for r in first_of_each_style(rows)
    ]
    yield markdown("sample-drafts", "\n\n".join(pages), "One raw response of each habit")


@stage(version="2026.11.21.2", uses=(VERIFIER_VERSION,), show=show_drafts)
def distil_demonstrations(
    store: Store,
    version: str,
    *,
    problems: Handle,
    distil: DistilRecipe,
    files: dict[str, dict[str, str]],
    verify: VerifyRecipe,
    engine: EngineRecipe,
    seed: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Gather the teachers' responses, split them, judge the complete ones."""
    from still_core.distil.drafts import distil_drafts, draft_funnel
    from still_core.problems.tables import read_problems, read_responses
    from still_core.store.bundle import publish_tables
    from tasks.engines import ask_teacher, verifier_pool

    told = listener(store, run)

    def ask(
        teacher: Teacher, asked: Sequence[Problem], verifier: VerifierPool
    ) -> list[RawResponse]:
        return ask_teacher(
            store, teacher, distil, asked, engine, verifier, resources, seed=seed, progress=told
        )

    with verifier_pool(verify, resources) as verifier:
        drafts = distil_drafts(
            distil,
            read_problems(store, problems),
            read_responses(store, problems),
            verifier,
            seed=seed,
            ask=ask,
            progress=told,
        )
    tables = {
        "drafts": [one.to_row() for one in drafts],
        "funnel": draft_funnel("unify", drafts).to_rows(),
    }
    states = [str(one.state) for one in drafts]
    meta = {state: states.count(state) for state in sorted(set(states))}
    return publish_tables(store, "distil-demonstrations", version, tables, meta=meta)


def lack_solutions(store: str, drafts: Handle, distil: DistilRecipe) -> bool:
    """Whether a solution writer is needed; yes while that is not known."""
    if not distil.complete_solutions:
        return False
    return is_pending(drafts) or "needs_solution" in Store(store).manifest(drafts).meta


@stage(version="2026.11.21.3", uses=(RULES_VERSION,), show=show_dataset)
def collect_writer_demonstrations(
    store: Store, version: str, *, drafts: Handle, clean: CleanRecipe, mix: MixRecipe
) -> Handle:
    """The complete, clean demonstrations that teach the solution writer."""
    from still_core.distil.dataset import build_d0, publish_dataset
    from still_core.distil.drafts import demonstrations_of, read_drafts

    dataset = build_d0(demonstrations_of(read_drafts(store, drafts)), clean, mix)
    return publish_dataset(
        store, "collect-writer-demonstrations", version, dataset, clean_recipe=clean
    )


@stage(version="2026.11.21.2", uses=(VERIFIER_VERSION,), show=show_drafts)
def complete_solutions(
    store: Store,
    version: str,
    *,
    drafts: Handle,
    writer: Handle,
    prompt: str,
    engine: EngineRecipe,
    sampling: Sampling,
    verify: VerifyRecipe,
    resources: Resources,
    run: str,
) -> Handle:
    """Let the fine-tuned writer complete each thought that has no solution, and judge it."""
    from still_core.distil.completion import complete_drafts
    from still_core.distil.drafts import draft_funnel, judge_drafts, read_drafts
    from still_core.rollout.bank import RolloutBank
    from still_core.store.bundle import publish_tables
    from tasks.engines import rollout_pool, verifier_pool

    told = listener(store, run)
    completed = complete_drafts(
        read_drafts(store, drafts),
        rollout_pool(store, writer, engine, resources),
        RolloutBank(store),
        prompt_name=prompt,
        sampling=sampling,
        owner=f"{run}/complete",
        progress=told,
    )
    with verifier_pool(verify, resources) as verifier:
        completed = judge_drafts(completed, verifier, progress=told)
    tables = {
        "drafts": [one.to_row() for one in completed],
        "funnel": draft_funnel("complete", completed).to_rows(),
    }
    return publish_tables(store, "complete-solutions", version, tables)


@stage(version="2026.11.21.3", uses=(RULES_VERSION,), show=show_dataset)
def build_d0(
    store: Store,
    version: str,
    *,
    drafts: Handle,
    completed: Handle | None,
    backbone: Handle,
    clean: CleanRecipe,
    mix: MixRecipe,
) -> Handle:
    """Clean and mix all judged demonstrations to D_0."""
    from still_core.distil import dataset as datasets
    from still_core.distil.drafts import demonstrations_of, read_drafts
    from still_core.responses.codec import read_codec

    both = [read_drafts(store, handle) for handle in (drafts, completed) if handle is not None]
    rows = [row for some in both for row in demonstrations_of(some)]
    rows = datasets.count_thought_tokens(rows, read_codec(store.fetch(backbone)).encode)
    return datasets.publish_dataset(
        store, "build-d0", version, datasets.build_d0(rows, clean, mix), clean_recipe=clean
    )


@stage(version="2026.11.21.3", uses=(RULES_VERSION,), show=show_dataset)
def refine_demonstrations(
    store: Store,
    version: str,
    *,
    d0: Handle,
    candidates: list[Handle],
    clean: CleanRecipe,
    select: SelectRecipe,
    mix: MixRecipe,
    round: int,
) -> Handle:
    """D_t: the same strict rules over D_0 and every candidate found so far."""
    from still_core.distil.dataset import publish_dataset, read_demonstrations, refine_round

    found = [row for handle in candidates for row in read_demonstrations(store, handle)]
    dataset = refine_round(read_demonstrations(store, d0), found, clean, select, mix)
    return publish_dataset(store, "refine-demonstrations", version, dataset, clean_recipe=clean)


@stage(version="2026.11.21.2")
def fingerprint_benchmarks(
    store: Store, version: str, *, problems: Handle, gate: DecontaminateRecipe
) -> Handle:
    """Fingerprints of every benchmark: what training data is held against first."""
    from still_core.store.bundle import read_rows_of

    return store.publish_table(
        "fingerprint-benchmarks", version, read_rows_of(store, problems, "fingerprints")
    )
