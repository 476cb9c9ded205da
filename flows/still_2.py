"""STILL-2 (arXiv 2412.09413): imitate, then explore and self-improve, round after round.

    problems ──> imitate: D_0 ──────────────> M_1
                                               │
    M_0 ──────────────────────┐                ▼
                              │    ┌──> explore hard problems with M_t ──> bank
                              │    │           │ what was found
                              │    │           ▼
                              └────┼──> self-improve: D_t = D_0 + found ──> M_{t+1} trained from M_0
                                   └──────── t = 1..N ◄───────────────────────┘

With `self_improve.method=dpo`, self-improve pairs correct with wrong responses and trains M_1 on
the pairs. Ends when N rounds are done or the problem pool is exhausted. Every model is evaluated on
the same held-out benchmarks.
"""

from __future__ import annotations

from prefect import flow

from flows.explore import explorable, explore
from flows.imitate import imitate
from flows.models import evaluated
from flows.run import Run
from flows.self_improve import self_improve
from still_core.recipes.presets import miniature
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.store.handle import Handle
from tasks.backbone import publish_backbone
from tasks.demonstrations import fingerprint_benchmarks
from tasks.engines import workers_of_run
from tasks.explore import pool_is_exhausted, require_problems
from tasks.mistakes import state_mistakes_in_one_line
from tasks.preflight import preflight
from tasks.problems import collect_problems
from tasks.report import compose_report, publish_report
from tasks.runlog import stage_log
from tasks.stage import stall_limit


@flow(name="still-2", flow_run_name="{recipe.name}", description=__doc__)
def still_2(
    recipe: Still2Recipe = miniature(),  # noqa: B008 - a frozen value; the UI's form shows it
    store: str = ".still/store",
    reports: str = "reports",
    resources: Resources = Resources(),  # noqa: B008
) -> str:
    """Run the whole loop and return the path of its report.

    Args:
        recipe: everything that defines the result; a change re-runs what reads it, nothing above.
        store: root of the object store, a local folder or `s3://bucket/prefix`.
        reports: local folder for reports; `reports/latest` leads to the newest.
        resources: actors, ranks, CPUs and GPUs.
    """
    state_mistakes_in_one_line()
    run = Run(name=recipe.run_name(), store=store, resources=resources)
    files = preflight(recipe, store, resources, reports)
    with stage_log() as stages, stall_limit(resources.stage_stall_s), workers_of_run():
        problems = collect_problems(
            store=store, problems=recipe.problems, files=files.problems, run=run.name
        )
        if recipe.rounds:
            require_problems(store, problems, recipe.pool)
        backbone = publish_backbone(store=store, model=recipe.backbone.model, files=files.backbone)
        fingerprints = fingerprint_benchmarks(
            store=store, problems=problems, gate=recipe.problems.decontaminate
        )
        scores = [evaluated(run, recipe, problems, backbone, 0)]
        drafts, d0, model = imitate(run, recipe, problems, fingerprints, backbone, files.teachers)
        scores.append(evaluated(run, recipe, problems, model, 1))
        data, models = [d0], [backbone, model]
        explorations: list[Handle] = []
        finds: list[Handle] = []
        pool = explorable(run, recipe, problems, model) if recipe.rounds else problems
        for round in range(1, recipe.rounds + 1):
            exploration, found = explore(run, recipe, pool, model, explorations, models[1], round)
            explorations.append(exploration)
            finds.append(found)
            dt, model = self_improve(run, recipe, fingerprints, d0, finds, models, round)
            data.append(dt)
            models.append(model)
            scores.append(evaluated(run, recipe, problems, model, round + 1))
            if pool_is_exhausted(store, exploration, recipe.pool):
                break
        composed = compose_report(
            store=store,
            recipe=recipe,
            problems=problems,
            drafts=drafts,
            data_sets=data,
            models=models[1:],
            explorations=explorations,
            finds=finds,
            scores=scores,
        )
    return publish_report(store, composed, run.name, reports, stages)
