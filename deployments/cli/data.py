"""`still data`: build a training set, look into it, hold training data against benchmarks."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from deployments.cli.ending import end_on_signals
from deployments.cli.parameters import Changes, ResourceChanges
from deployments.environment import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from still_core.problems.problem import Problem
    from still_core.problems.raw import RawResponse
    from still_core.refine.recipe import Teacher
    from still_core.verify import VerifierPool


def build(
    *,
    recipe: str,
    out: str,
    set: Changes = (),
    resource: ResourceChanges = (),
    workers: int | None = None,
) -> None:
    """Build D_0 by a recipe and publish it in a store.

    Live teachers are asked at `--resource rollout.endpoint=http://host:8000/v1`, as fast as
    `--resource rollout.requests_per_minute=60` allows.

    Parameters
    ----------
    recipe
        Name of a preset, or a YAML or JSON file.
    out
        Store: a folder or `s3://bucket/prefix`.
    workers
        Verifier processes, as `--resource verify_workers=N`.
    """
    prepare_environment()
    end_on_signals()
    from still_core.dataset import build_dataset
    from still_core.identity import digest
    from still_core.inspection import read_funnels
    from still_core.recipes.loading import load_recipe, load_resources
    from still_core.store import Store
    from still_core.terminal import TerminalProgress
    from tasks.engines import ask_teacher, workers_of_run
    from tasks.preflight import check_teachers, fingerprint_sources, fingerprint_teachers

    wider = () if workers is None else (f"verify_workers={workers}",)
    loaded, resources = load_recipe(recipe, set), load_resources(recipe, (*resource, *wider))
    benchmarks = [one.source for one in loaded.problems.benchmarks]
    files = fingerprint_sources([*loaded.problems.sources, *benchmarks])
    for source, found in fingerprint_teachers(loaded.distil).items():
        files[f"teacher {source}"] = digest(found)
    check_teachers(loaded, resources.rollout)
    store = Store(out)
    with TerminalProgress() as progress, workers_of_run():

        def ask(
            teacher: Teacher, problems: Sequence[Problem], verifier: VerifierPool
        ) -> list[RawResponse]:
            return ask_teacher(
                store,
                teacher,
                loaded.distil,
                problems,
                loaded.engine,
                verifier,
                resources,
                seed=loaded.seed,
                progress=progress,
            )

        handle = build_dataset(
            loaded,
            store,
            files=files,
            workers=resources.verify_workers,
            ask=ask,
            progress=progress,
        )
    for title, one in read_funnels(store, handle).items():
        print(f"{title}\n{one.to_markdown()}\n", file=sys.stderr)
    print(handle.uri)


def funnel(uri: str) -> None:
    """Print what each step kept and dropped, by reason.

    Parameters
    ----------
    uri
        What `still data build` printed, or a store, whose newest data set is taken.
    """
    from still_core.inspection import find_dataset, read_funnels

    store, handle = find_dataset(uri)
    print(f"{handle.name} {handle.version}")
    for title, one in read_funnels(store, handle).items():
        print(f"\n{title}\n\n{one.to_markdown()}")


def show(uri: str, row: str) -> None:
    """Print one row and its lineage.

    Parameters
    ----------
    uri
        What `still data build` printed, or a store, whose newest data set is taken.
    row
        Number of a demonstration, or the id of a demonstration, response or problem.
    """
    from still_core.inspection import describe_row, find_dataset

    store, handle = find_dataset(uri)
    print(describe_row(store, handle, row))


def decontaminate(
    *,
    train: str,
    benchmarks: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path | None = None,
    ngram: int = 8,
    containment: float = 0.6,
    threshold: float = 0.0,
    waiver: str = "",
) -> None:
    """Find benchmark problems in training data; fails where there are more than allowed.

    Parameters
    ----------
    train
        A file or folder of problems (any of the known forms), or a data set that
        `still data build` made.
    benchmarks
        `NAME=FILE` each; where NAME is a known benchmark (`aime24`, `math-oai`, ...), FILE is read
        in its form.
    out
        JSONL of every overlap found.
    ngram
        Words in one n-gram.
    containment
        Share of a benchmark problem's n-grams in a training problem that is overlap.
    threshold
        Share of a benchmark's problems that may be in the training data.
    waiver
        Who allows more, and why.
    """
    from still_core.problems.comparison import parse_benchmarks, write_overlaps
    from still_core.problems.decontaminate import decontaminate as compare
    from still_core.problems.decontaminate import require_clean
    from still_core.problems.recipe import DecontaminateRecipe
    from still_core.recipes.loading import checked
    from still_core.whole_file import whole_file

    options = {"ngram": ngram, "containment": containment, "threshold": threshold, "waiver": waiver}
    gate = checked(DecontaminateRecipe, options, origin="an option")
    with nullcontext() if out is None else whole_file(out) as file:
        report = compare(_training_problems(train), parse_benchmarks(benchmarks), recipe=gate)
        print(report.to_markdown())
        if file is not None:
            write_overlaps(report, file)
    require_clean(report, threshold=threshold, waiver=waiver)


def _training_problems(train: str) -> list[Problem]:
    """Problems of a file, or the statements of a published data set."""
    from still_core.problems.comparison import read_statements

    if "/manifests/" not in train:
        return read_statements("train", train)
    from still_core.inspection import find_dataset, responses_of
    from still_core.problems.comparison import problems_of_rows

    return problems_of_rows([row.to_row() for row in responses_of(*find_dataset(train))])
