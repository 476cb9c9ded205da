"""Report: one stage composes it from what the run made; writing it to a folder is free of cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact

from still_core.recipes.recipe import Still2Recipe
from still_core.store import Handle, Store
from tasks.artifacts import Shown, markdown
from tasks.planning import current_plan
from tasks.runlog import StageRun
from tasks.stage import stage


def show_report(store: Store, report: Handle) -> Iterator[Shown]:
    """The accuracy table, and whether the papers' claims show."""
    from still_core.report.stored import read_report
    from still_core.report.table import markdown_table

    data = read_report(store, report)
    yield markdown(
        "accuracy-table", markdown_table(data), "Accuracy of every model on every benchmark"
    )


@stage(version="2026.11.21.2", show=show_report)
def compose_report(
    store: Store,
    version: str,
    *,
    recipe: Still2Recipe,
    problems: Handle,
    drafts: list[Handle],
    data_sets: list[Handle],
    models: list[Handle],
    explorations: list[Handle],
    finds: list[Handle],
    scores: list[Handle],
) -> Handle:
    """Everything the report says, from the artefacts of the run."""
    from still_core.miniature.soundness import soundness
    from still_core.report.stored import FILE, compose, report_bytes

    data = compose(
        store,
        recipe,
        problems=problems,
        drafts=drafts,
        data_sets=data_sets,
        models=models,
        explorations=explorations,
        finds=finds,
        scores=scores,
        thought_check=soundness,
    )
    return store.publish("compose-report", version, {FILE: report_bytes(data)})


def publish_report(
    store: str, report: Handle, run: str, reports: str, stages: Sequence[StageRun]
) -> str:
    """Write the report with this run's times to `reports/<run>`; link to it in the Prefect UI."""
    if current_plan() is not None:
        return ""
    from dataclasses import replace

    from still_core.report.data import StageTime
    from still_core.report.files import write_report
    from still_core.report.stored import read_report

    times = tuple(
        StageTime(name=s.name, seconds=round(s.seconds, 2), cached=s.cached) for s in stages
    )
    data = replace(read_report(Store(store), report), stages=times)
    page = write_report(data, Path(reports) / run).resolve()
    create_link_artifact(key="report", link=page.as_uri(), link_text=f"reports/{run}/report.html")
    return str(page)
