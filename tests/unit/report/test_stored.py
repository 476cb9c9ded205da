"""A report composed from stored artefacts says what was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from still_core.distil.dataset import Dataset, publish_dataset
from still_core.evaluate.answers import EvaluatedAnswer
from still_core.problems.prepare import prepare_problems
from still_core.problems.recipe import BenchmarkSpec, DecontaminateRecipe, ProblemsRecipe
from still_core.problems.tables import publish_prepared
from still_core.recipes.loading import load_recipe
from still_core.refine.mix import Mixture, mix
from still_core.refine.recipe import MixRecipe
from still_core.report.data import ReportData
from still_core.report.markdown import overlaps_markdown
from still_core.report.page import render_page
from still_core.report.stored import compose
from still_core.responses.response import Origin
from still_core.store import Store
from still_core.store.bundle import publish_tables
from tests.unit.problems.test_collect import a_file, a_source, math_rows
from tests.unit.refine.test_clean_rules import row

RECIPE = load_recipe("miniature")
PERCENT = (10, 40, 80)
"""Right answers of the backbone, M_1 and M_2."""
D0 = mix([row(number) for number in range(3)], MixRecipe())


def report_of(folder: Path, mixtures: Sequence[Mixture], **gate: object) -> ReportData:
    """The report of a run that trained on these mixtures, five of twenty problems a benchmark's."""
    test = a_source(a_file(folder, "test.jsonl", math_rows(5)), "test")
    problems = ProblemsRecipe(
        sources=(a_source(a_file(folder, "train.jsonl", math_rows(20)), "train"),),
        benchmarks=(BenchmarkSpec(name="held-out", level="hard", source=test),),
        decontaminate=DecontaminateRecipe.model_validate(gate),
    )
    store = Store(str(folder / "store"))
    prepared = publish_prepared(store, "problems", "1", prepare_problems(problems), problems)
    nothing = publish_tables(store, "nothing", "1", {"funnel": []})
    rounds = range(len(mixtures))
    return compose(
        store,
        RECIPE,
        problems=prepared,
        drafts=[nothing],
        data_sets=[
            publish_dataset(store, "data", f"{round}", a_data_set(one), clean_recipe=RECIPE.clean)
            for round, one in enumerate(mixtures)
        ],
        models=[store.publish("model", f"{round}", {"metrics.jsonl": b""}) for round in rounds],
        explorations=[],
        finds=[nothing for _ in rounds[1:]],
        scores=[
            store.publish_table("answers", f"{percent}", answers(percent))
            for percent in PERCENT[: len(mixtures) + 1]
        ],
        thought_check=lambda problem, response: None,
    )


def a_data_set(mixture: Mixture) -> Dataset:
    return Dataset(
        demonstrations=mixture.kept, dropped=mixture.dropped, funnel=mixture.funnel, groups=[]
    )


def answers(percent: int) -> list[dict[str, object]]:
    """Rows of a hundred answers to each level."""
    return [
        EvaluatedAnswer(
            benchmark=f"b-{level}",
            level=level,
            problem_id=f"{level}/{number}",
            domain="d",
            difficulty=None,
            sample_index=0,
            outcome="correct" if number < percent else "wrong",
            extracted=None,
            truncated=False,
            thought_tokens=5,
        ).to_row()
        for level in ("normal", "hard")
        for number in range(100)
    ]


def test_a_round_whose_finds_displace_distilled_rows_is_a_round(tmp_path: Path) -> None:
    recipe = MixRecipe(target_size=30)
    buckets = ("hard_math", "normal_math", "other")
    d0 = mix([row(n, bucket=buckets[n % 3]) for n in range(30)], recipe)
    finds = [row(n, origin=Origin.EXPLORED, round=1) for n in range(100, 110)]
    report = report_of(tmp_path, [d0, mix([*d0.kept, *finds], recipe)])
    assert [one.round for one in report.rows] == [0, 0, 1]
    assert report.rows[1].distill == 30
    assert report.rows[2].distill < 30 == report.rows[2].distill + report.rows[2].explore
    (first,) = (claim for claim in report.claims if "round 1 beats" in claim.text)
    assert first.shown is True
    assert "hard: 40.0 % -> 80.0 %" in first.evidence


def test_problems_that_a_waiver_left_in_training_are_not_said_to_be_removed(tmp_path: Path) -> None:
    report = report_of(tmp_path, [D0], drop=False, waiver="Ann: a control run")
    (overlap,) = report.overlaps
    assert (overlap.training_problems, overlap.removed, overlap.left) == (20, 0, 5)
    assert overlaps_markdown(report.overlaps).endswith("| held-out | 5 | 20 | 0 | 5 |")
    assert '<td class="n">0</td><td class="n">5</td></tr>' in render_page(report)
    assert report.notes == ("Overlap with a benchmark was waived: Ann: a control run",)


def test_a_waiver_that_nobody_needed_is_not_said_to_be_used(tmp_path: Path) -> None:
    report = report_of(tmp_path, [D0], waiver="Ann: a control run")
    (overlap,) = report.overlaps
    assert (overlap.training_problems, overlap.removed, overlap.left) == (20, 5, 0)
    assert report.notes == ()
