"""The three files of a report, its claims and samples, and hostile text that stays text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from still_core.errors import ConfigError, DataError
from still_core.evaluate.answers import BenchmarkScore, EvaluatedAnswer
from still_core.evaluate.paired import two_sided_sign_p
from still_core.refine.funnel import FunnelStep
from still_core.report.build import (
    ModelEvaluation,
    build_rows,
    choose_samples,
    model_labels,
)
from still_core.report.claims import paper_claims
from still_core.report.data import Curve, FunnelTable, ModelRow, ReportData, StageTime
from still_core.report.files import find_report, load_report, write_report
from still_core.report.markdown import curve_markdown, render_markdown
from still_core.report.page import render_page
from still_core.report.table import accuracy_table, markdown_table
from still_core.report.terminal import summary_text
from still_core.report.text import cell, duration, fenced, gain_text, visible


def made_row(
    explore: int, normal: float, hard: float, p: float = 0.001, n: int = 500, round: int = 0
) -> ModelRow:
    """A row with given accuracies and one p-value for everything."""

    def made(accuracy: float, level: str, tokens: float) -> BenchmarkScore:
        return BenchmarkScore(
            accuracy=accuracy,
            low=accuracy,
            high=accuracy,
            n=n,
            level=level,
            num_samples=n,
            thought_tokens=tokens,
            truncated_rate=0.0,
            outcomes={},
        )

    scores = {"normal": made(normal, "normal", 20.0), "hard": made(hard, "hard", 60.0)}
    return ModelRow(
        method="SFT",
        distill=300,
        explore=explore,
        thought_tokens=40.0,
        truncated_rate=0.0,
        benchmarks=scores,
        levels=scores,
        gain={},
        p_vs_previous={"normal": p, "hard": p},
        p_levels={"normal": p, "hard": p},
        round=round,
    )


def verdicts(rows: list[ModelRow]) -> dict[str, bool | None]:
    """Claim text -> shown, for a run of these rows."""
    data = ReportData(run="r", recipe_name="n", recipe={}, rows=tuple(rows))
    return {claim.text: claim.shown for claim in paper_claims(data)}


def shown(states: dict[str, bool | None], words: str) -> bool | None:
    """The state of the one claim that holds these words."""
    (state,) = [state for text, state in states.items() if words in text]
    return state


BACKBONE = replace(made_row(0, 0.30, 0.02), method="Backbone", distill=0, p_levels={})


def test_json_has_the_schema_that_programs_read(report: ReportData, tmp_path: Path) -> None:
    write_report(report, tmp_path / "run")
    value = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["method"] for row in value["rows"]] == ["Backbone", "SFT", "SFT", "SFT"]
    assert [(row["distill"], row["explore"]) for row in value["rows"]] == [
        (0, 0),
        (320, 0),
        (320, 180),
        (320, 410),
    ]
    for row in value["rows"]:
        assert isinstance(row["thought_tokens"], float)
        for score in row["benchmarks"].values():
            assert 0 <= score["low"] <= score["accuracy"] <= score["high"] <= 1
            assert score["n"] == 150
    assert value["rows"][0]["p_vs_previous"] == {}
    assert set(value["rows"][1]["p_vs_previous"]) == set(value["rows"][1]["benchmarks"])
    assert value["stages"][0] == {"name": "collect problems", "seconds": 1.2, "cached": False}


def test_equal_data_give_equal_bytes_in_all_three_files(report: ReportData, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(report, tmp_path / name)
    for file in ("report.json", "report.md", "report.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_times_change_nothing_but_the_stages(report: ReportData, tmp_path: Path) -> None:
    write_report(report, tmp_path / "first")
    cached = tuple(replace(stage, seconds=0.1, cached=True) for stage in report.stages)
    write_report(replace(report, stages=cached), tmp_path / "second")
    first, second = (
        json.loads((tmp_path / name / "report.json").read_text()) for name in ("first", "second")
    )
    assert first.pop("stages") != second.pop("stages")
    assert first == second


def test_a_report_reads_back_as_it_was_written(report: ReportData, tmp_path: Path) -> None:
    write_report(report, tmp_path / "run")
    loaded = load_report(tmp_path / "run")
    assert replace(loaded, claims=()) == report
    assert list(loaded.claims) == paper_claims(report)


def test_latest_is_a_relative_link_to_the_newest(report: ReportData, tmp_path: Path) -> None:
    small = replace(report, samples=(), difficulty_rates=(), curves=(), explorations=())
    write_report(small, tmp_path / "a")
    write_report(small, tmp_path / "b")
    assert str((tmp_path / "latest").readlink()) == "b"
    assert find_report(reports=tmp_path) == (tmp_path / "b").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "latest"]


def test_an_unknown_run_names_those_there_are(report: ReportData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="still run"):
        find_report("x", reports=tmp_path)
    write_report(replace(report, samples=(), curves=()), tmp_path / "a")
    with pytest.raises(ConfigError, match="expected a;"):
        find_report("x", reports=tmp_path)


def test_a_folder_that_can_not_be_written_is_one_line(report: ReportData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can not be written"):
        write_report(report, tmp_path / "file" / "run")


@pytest.mark.parametrize("text", ["no json", "[]", '{"run": "x"}', '{"rows": 3}'])
def test_a_broken_report_json_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError) as error:
        load_report(tmp_path)
    assert "\n" not in str(error.value)


class Elements(HTMLParser):
    """Collects the elements, ids and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_is_self_contained_and_hostile_text_stays_text(report: ReportData) -> None:
    page = render_page(report)
    assert "&lt;script&gt;alert(1)" in page
    elements = Elements()
    elements.feed(page)
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & set(elements.tags)
    assert elements.tags.count("svg") == 6
    names = {name for name, _ in elements.attributes}
    assert not {name for name in names if name.startswith("on")} | ({"src"} & names)
    assert all(
        (value or "").startswith("#")
        for name, value in elements.attributes
        if name in ("href", "xlink:href")
    )
    assert not re.search(r"https?://|url\((?!#)|@import", page)
    ids = [value for name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "plots share ids: one would clip the other"
    assert "\u202e" not in page


def test_markdown_fences_can_not_be_left(report: ReportData) -> None:
    assert fenced("a ```` b").startswith("`````text\n")
    outside = re.sub(r"(?ms)^(`{3,})text$.*?^\1$", "", render_markdown(report))
    assert "alert(2)" not in outside.replace("\\", "").split("## Rollouts to read")[1]
    assert cell("a|b\n<i>") == "a\\|b \\<i>"
    assert visible("a\x1b[31m\ud800") == "a\ufffd[31m\ufffd"


def test_rows_hold_the_paired_tests_worked_out_by_hand() -> None:
    def answers(rights: str) -> tuple[EvaluatedAnswer, ...]:
        return tuple(
            EvaluatedAnswer(
                benchmark="b-hard",
                level="hard",
                problem_id=str(index),
                domain="d",
                difficulty=None,
                sample_index=0,
                outcome="correct" if right == "1" else "wrong",
                extracted=None,
                truncated=False,
                thought_tokens=0,
            )
            for index, right in enumerate(rights)
        )

    first, second = build_rows(
        [
            ModelEvaluation(method="Backbone", distill=0, explore=0, answers=answers("1000000000")),
            ModelEvaluation(method="SFT", distill=5, explore=0, answers=answers("0111111000")),
        ]
    )
    assert (first.gain, first.p_vs_previous) == ({}, {})
    assert (second.p_vs_previous, second.p_levels) == ({"b-hard": 0.125}, {"hard": 0.125})
    assert two_sided_sign_p(6, 1) == 0.125
    assert second.gain["b-hard"] == pytest.approx(500.0)
    assert second.label == "SFT 5"


def test_a_good_run_shows_the_claims() -> None:
    states = verdicts(
        [
            BACKBONE,
            made_row(0, 0.8, 0.2),
            made_row(9, 0.85, 0.3, round=1),
            made_row(20, 0.9, 0.35, round=2),
        ]
    )
    for words in ("at least 25 points", "round 1", "round 2", "at least 10 points", "are longer"):
        assert shown(states, words) is True
    assert shown(states, "Gains come mostly") is True
    assert shown(states, "20 times") is None
    assert shown(states, "reward model") is None


def test_claims_that_do_not_show_are_said_not_to() -> None:
    weak = [
        BACKBONE,
        made_row(0, 0.549, 0.2),
        made_row(9, 0.6, 0.25, p=0.06, round=1),
        made_row(20, 0.6, 0.2, round=2),
    ]
    states = verdicts(weak)
    for words in ("at least 25 points", "round 1", "round 2", "at least 10 points"):
        assert shown(states, words) is False


def test_lucky_answers_are_counted_among_the_right_ones_that_were_checked() -> None:
    answers = tuple(
        EvaluatedAnswer(
            benchmark="b-hard",
            level="hard",
            problem_id=str(index),
            domain="d",
            difficulty=None,
            sample_index=0,
            outcome=outcome,
            extracted=None,
            truncated=False,
            thought_tokens=0,
            thought_valid=valid,
        )
        for index, (outcome, valid) in enumerate(
            [("correct", True), ("correct", False), ("correct", None), ("wrong", False)]
        )
    )
    (row,) = build_rows([ModelEvaluation(method="SFT", distill=1, explore=0, answers=answers)])
    assert (row.lucky, row.lucky_checked) == (1, 2)


def test_a_backbone_that_solves_nothing_gives_gains_in_points() -> None:
    assert gain_text(0.4, 0.0, None) == "+40.0 points"
    assert gain_text(0.902, 0.8, 12.75) == "+12.8 %"


def test_rows_of_another_method_or_of_no_round_are_no_further_rounds() -> None:
    rows = [BACKBONE, made_row(0, 0.8, 0.2), made_row(9, 0.85, 0.3, round=1)]
    aligned = replace(made_row(9, 0.5, 0.1, round=1), method="SFT & DPO")
    fewer = replace(made_row(9, 0.4, 0.1), distill=60)
    states = verdicts([*rows, aligned, fewer])
    assert not any("round 2" in text for text in states)
    assert shown(states, "at least 10 points") is True


def test_a_round_that_found_nothing_is_a_round_that_does_not_show() -> None:
    states = verdicts([BACKBONE, made_row(0, 0.8, 0.2), made_row(0, 0.8, 0.2, p=1.0, round=1)])
    assert shown(states, "round 1") is False
    assert shown(states, "at least 10 points") is False


def test_models_with_equal_counts_get_different_labels() -> None:
    twice = [ModelEvaluation(method="SFT", distill=5, explore=0, answers=())] * 2
    assert model_labels(twice) == ["SFT 5", "SFT 5 (2)"]


def test_a_run_without_rounds_says_not_measured() -> None:
    states = verdicts([BACKBONE])
    assert shown(states, "at least 25 points") is None
    assert set(states.values()) == {None}


def test_samples_are_right_wrong_and_truncated_and_do_not_depend_on_order() -> None:
    from itertools import product

    answers = [
        EvaluatedAnswer(
            benchmark=f"{domain}-normal",
            level="normal",
            problem_id=f"{number}",
            domain=domain,
            difficulty=None,
            sample_index=0,
            outcome=("correct", "wrong", "no_answer")[number % 3],
            extracted=None,
            truncated=number % 3 == 2,
            thought_tokens=1,
        )
        for domain, number in product("ab", range(30))
    ]
    forward = choose_samples(
        [ModelEvaluation(method="SFT", distill=1, explore=0, answers=tuple(answers))]
    )
    backward = choose_samples(
        [ModelEvaluation(method="SFT", distill=1, explore=0, answers=tuple(reversed(answers)))]
    )
    assert forward == backward
    assert [sample.outcome for sample in forward] == ["correct"] * 8 + ["wrong"] * 8 + [
        "no_answer"
    ] * 4
    assert {sample.benchmark for sample in forward[:2]} == {"a-normal", "b-normal"}


def test_tables_name_every_row_and_benchmark(report: ReportData) -> None:
    text = accuracy_table(report)
    assert max(map(len, text.splitlines())) <= 120
    for row in report.rows:
        for score in row.benchmarks.values():
            assert f"{100 * score.accuracy:.1f}" in text
    lines = markdown_table(report).splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert len({line.count(" | ") for line in lines}) == 1


@pytest.mark.parametrize(("width", "blocks"), [(60, 4), (80, 2), (120, 1)])
def test_the_terminal_table_fits_the_terminal(report: ReportData, width: int, blocks: int) -> None:
    renamed = replace(report.rows[-1], method="SFT & DPO")
    lines = accuracy_table(replace(report, rows=(*report.rows, renamed)), width=width).splitlines()
    lines = lines[:-1]
    assert max(map(len, lines)) <= width
    assert sum("Backbone" in line for line in lines) == blocks
    assert not any("\u2026" in line for line in lines), "nothing is cut"


def test_the_summary_names_what_does_not_show_and_where_the_page_is(tmp_path: Path) -> None:
    rows = (BACKBONE, made_row(0, 0.4, 0.2))
    write_report(ReportData(run="r", recipe_name="n", recipe={}, rows=rows), tmp_path / "r")
    text = summary_text(load_report(tmp_path / "r"), tmp_path / "r")
    assert "NOT shown: A few hundred distilled" in text
    assert f"report: {tmp_path / 'r' / 'report.html'}\n" in text


def test_a_funnel_that_loses_rows_is_refused() -> None:
    step = FunnelStep(name="clean", num_in=10, num_kept=8, dropped={"short": 1})
    with pytest.raises(DataError, match="kept"):
        FunnelTable(name="D_0", steps=(step,))


@pytest.mark.parametrize("diverged", [None, float("nan"), float("inf")])
def test_a_diverged_run_is_shown_as_such_and_still_renders(
    report: ReportData, diverged: float | None
) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": diverged}, {"train_runtime": 3}]
    curve = Curve.from_metrics("M_1 $\\frac{", rows)
    assert curve.loss == (2.0, None)
    assert "1 not finite" in curve_markdown(curve)
    assert "<svg" in render_page(replace(report, curves=(curve,)))


def test_the_smallest_report_renders(tmp_path: Path) -> None:
    data = ReportData(run="r", recipe_name="n", recipe={}, rows=(BACKBONE,))
    assert write_report(data, tmp_path / "r").is_file()
    with pytest.raises(DataError, match="backbone"):
        ReportData(run="r", recipe_name="n", recipe={}, rows=())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.24, "4.2 s"), (59.96, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_read_naturally(seconds: float, words: str) -> None:
    assert duration(seconds) == words
    assert StageTime(name="s", seconds=seconds, cached=False).seconds == seconds
