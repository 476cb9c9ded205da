"""Collecting, filtering and preparing problems: every row accounted for, the gate in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import ConfigError, DataError
from still_core.problems.collect import collect, collect_benchmarks
from still_core.problems.filters import filter_problems
from still_core.problems.prepare import prepare_problems
from still_core.problems.problem import AnswerKind, Bucket, QuestionType
from still_core.problems.raw import RawResponse
from still_core.problems.recipe import (
    BenchmarkSpec,
    DecontaminateRecipe,
    FilterRecipe,
    ProblemsRecipe,
    SourceSpec,
)
from still_core.progress import Progress
from tasks.preflight import fingerprint_sources

LONG = "In a bag there are {} red and {} blue marbles, and Ann draws two. What is the chance of {}?"


def a_file(folder: Path, name: str, rows: list[Any]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def a_source(path: Path, name: str = "s", **options: Any) -> SourceSpec:
    return SourceSpec(name=name, adapter=options.pop("adapter", "math"), path=str(path), **options)


def math_rows(count: int) -> list[dict[str, str]]:
    return [{"problem": LONG.format(n + 2, 7 * n, n), "answer": str(n)} for n in range(count)]


def test_problem_ids_name_source_and_row(tmp_path: Path) -> None:
    rows = [*math_rows(2), {"problem": "no gold"}, *math_rows(4)[2:]]
    found = collect([a_source(a_file(tmp_path, "a.jsonl", rows))])
    assert [p.id for p in found.problems] == ["s/0", "s/1", "s/3", "s/4"]
    assert found.counts[0].filtered == {"no_gold": 1}
    assert found.funnel.to_rows()[0]["reason"] == "left_out:no_gold"


def test_ids_stay_unique_over_the_files_of_a_folder(tmp_path: Path) -> None:
    a_file(tmp_path, "a.jsonl", math_rows(2))
    a_file(tmp_path, "b.jsonl", math_rows(2))
    found = collect([a_source(tmp_path)])
    assert [p.id for p in found.problems] == [
        "s/a.jsonl:0", "s/a.jsonl:1", "s/b.jsonl:0", "s/b.jsonl:1",
    ]  # fmt: skip


def test_files_of_one_name_in_two_folders_give_two_ids(tmp_path: Path) -> None:
    for subject, first in (("algebra", 0), ("geometry", 3)):
        (tmp_path / "MATH" / subject).mkdir(parents=True)
        a_file(tmp_path / "MATH" / subject, "1.jsonl", math_rows(first + 1)[first:])
    spec = SourceSpec(name="s", adapter="math", path="MATH")
    ids = [p.id for p in collect([spec], base=tmp_path).problems]
    assert ids == ["s/algebra/1.jsonl:0", "s/geometry/1.jsonl:0"]
    globbed = SourceSpec(name="s", adapter="math", path="MATH/*/1.jsonl")
    assert [p.id for p in collect([globbed], base=tmp_path).problems] == ids


@pytest.mark.parametrize("path", ["{}/*.jsonl", "~/*.jsonl", "~/a.jsonl"])
def test_what_a_run_fingerprints_is_what_it_reads(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = a_file(tmp_path, "a.jsonl", math_rows(1))
    spec = SourceSpec(name="s", adapter="math", path=path.format(tmp_path))
    assert len(collect([spec]).problems) == 1
    before = fingerprint_sources([spec])
    file.write_text(file.read_text() + json.dumps(math_rows(2)[1]) + "\n")
    assert fingerprint_sources([spec]) != before


def test_relative_paths_start_from_the_base(tmp_path: Path) -> None:
    a_file(tmp_path, "a.jsonl", math_rows(1))
    spec = SourceSpec(name="s", adapter="math", path="a.jsonl")
    found = collect([spec], base=tmp_path)
    assert [p.id for p in found.problems] == ["s/0"]


def test_overrides_and_limit_of_a_source(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a.jsonl", math_rows(9))
    spec = a_source(path, limit=3, bucket=Bucket.OTHER, domain="puzzle", licence="CC0")
    problems = collect([spec]).problems
    assert len(problems) == 3
    assert {(p.bucket, p.domain, p.licence) for p in problems} == {("other", "puzzle", "CC0")}


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a.jsonl", math_rows(1))
    with pytest.raises(ConfigError, match="two sources of one name"):
        collect([a_source(path), a_source(path)])


def test_progress_is_told_and_the_end_of_each_source(tmp_path: Path) -> None:
    long = a_source(a_file(tmp_path, "a.jsonl", math_rows(2500)), "long")
    short = a_source(a_file(tmp_path, "b.jsonl", math_rows(2)), "short", limit=1)
    heard: list[Progress] = []
    collect([long, short], progress=heard.append)
    assert [(one.stage, one.done, one.total) for one in heard] == [
        ("collect long", 1000, None),
        ("collect long", 2000, None),
        ("collect long", 2500, 2500),
        ("collect short", 1, 1),
    ]


def test_generated_problems_carry_their_source() -> None:
    spec = SourceSpec(
        name="hard", adapter="miniature", path="miniature:arithmetic/hard?count=5&seed=7"
    )
    problems = collect([spec]).problems
    assert [p.id for p in problems] == [f"hard/{n}" for n in range(5)]
    assert {p.source for p in problems} == {"hard"}
    assert problems == collect([spec]).problems


@pytest.mark.parametrize("path", ["miniature:arithmetic", "miniature:arithmetic/hard?n=3"])
def test_a_bad_generator_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="miniature"):
        collect([SourceSpec(name="s", adapter="miniature", path=path)])


def test_a_benchmark_with_a_malformed_row_is_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a.jsonl", [*math_rows(2), {"problem": 3, "answer": "1"}])
    with pytest.raises(DataError, match=r"a\.jsonl.*line=3.*mistyped_field"):
        collect_benchmarks([BenchmarkSpec(name="b", source=a_source(path))])


@pytest.mark.parametrize("path", ["one.jsonl", ".", "*.jsonl"])
def test_responses_do_not_tell_which_folder_their_source_lies_in(tmp_path: Path, path: str) -> None:
    row = {"question": "q?", "combined_text": "... \\boxed{2}", "domain": "physics"}
    found = []
    for folder in (tmp_path / "ann", tmp_path / "bob" / "data"):
        folder.mkdir(parents=True)
        a_file(folder, "one.jsonl", [row])
        source = SourceSpec(name="r1", adapter="long-form-thought", path=path)
        found.append([r.to_row() for r in collect([source], base=folder).responses])
    assert found[0] == found[1] != []
    assert found[0][0]["source_file"] == ("r1" if path == "one.jsonl" else "r1/one.jsonl")


def test_raw_responses_survive_a_table(tmp_path: Path) -> None:
    row = {"question": "q?", "combined_text": "... \\boxed{2}", "domain": "physics"}
    (one,) = collect(
        [a_source(a_file(tmp_path, "a.jsonl", [row]), adapter="long-form-thought")]
    ).responses
    assert one.problem.gold == "2"
    assert one.problem.domain == "physics"
    assert RawResponse.from_row(one.to_row()) == one


def test_filters_drop_by_the_first_rule_that_objects(tmp_path: Path) -> None:
    rows = [
        {"problem": "Find x in $x+1=2$.", "answer": "1"},
        {"problem": "Problem 3. Find $x$ in \\(x+1=2\\).", "answer": "1"},
        {"problem": "Find y in $y+1=2$.", "answer": "1"},
    ]
    problems = collect([a_source(a_file(tmp_path, "a.jsonl", rows))]).problems
    filtered = filter_problems(problems, FilterRecipe(kinds=(AnswerKind.MATH,)))
    assert [p.id for p in filtered.kept] == ["s/0", "s/2"]
    assert [(d.problem, d.rule, d.reason) for d in filtered.dropped] == [
        ("s/1", "duplicate", "s/0")
    ]
    none = filter_problems(problems, FilterRecipe(kinds=(AnswerKind.CODE,)))
    assert none.kept == []
    assert none.funnel.num_dropped == 3


def test_prepare_drops_overlap_and_accounts_for_every_row(tmp_path: Path) -> None:
    rows = [*math_rows(6), {"problem": None}, math_rows(1)[0]]
    recipe = ProblemsRecipe(
        sources=(a_source(a_file(tmp_path, "train.jsonl", rows), "train"),),
        benchmarks=(
            BenchmarkSpec(
                name="held-out",
                source=a_source(a_file(tmp_path, "test.jsonl", math_rows(3)[2:]), "test"),
            ),
        ),
    )
    prepared = prepare_problems(recipe)
    assert [p.id for p in prepared.problems] == [f"train/{n}" for n in (0, 1, 3, 4, 5)]
    assert [(d.problem, d.rule) for d in prepared.dropped] == [
        ("train/7", "duplicate"),
        ("train/2", "overlap"),
    ]
    assert [(q.line, q.reason) for q in prepared.quarantined] == [(7, "missing_field")]
    assert prepared.num_overlapping == {"held-out": 1}
    assert (prepared.funnel.num_in, prepared.funnel.num_kept) == (8, 5)
    assert prepared.overlap.benchmarks[0].num_found == 0


def test_prepare_refuses_overlap_that_is_not_dropped_unless_waived(tmp_path: Path) -> None:
    train = a_source(a_file(tmp_path, "train.jsonl", math_rows(4)), "train")
    test = a_source(a_file(tmp_path, "test.jsonl", math_rows(2)), "test")
    benchmark = BenchmarkSpec(name="held-out", source=test)

    def prepare(**gate: Any) -> Any:
        recipe = ProblemsRecipe(
            sources=(train,),
            benchmarks=(benchmark,),
            decontaminate=DecontaminateRecipe(drop=False, **gate),
        )
        return prepare_problems(recipe)

    with pytest.raises(DataError, match="held-out 2 of 2"):
        prepare()
    waived = prepare(waiver="R. Searcher: contamination study")
    assert len(waived.problems) == 4
    assert waived.overlap.waiver == "R. Searcher: contamination study"


def test_recipe_sections_import_without_heavy_packages() -> None:
    heavy = "torch ray vllm trl transformers datasets pandas pyarrow numpy fsspec"
    program = (
        "import sys, still_core.problems.recipe as r; r.ProblemsRecipe();"
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_question_types_and_symbolic_golds_can_be_dropped(tmp_path: Path) -> None:
    rows = [
        {"problem": "Prove that 2 is a prime number.", "answer": "2"},
        {"problem": "What is the sum of 3 and 4?", "answer": "7"},
        {"problem": "Which is larger?\n(A) 3\n(B) 4\n(C) 5\n(D) 6", "answer": "6"},
        {"problem": "Find the roots of $x^2 = a^2$ in terms of $a$.", "answer": "a, -a"},
        {"problem": "What is half of 5?", "answer": "\\frac{5}{2}"},
    ]
    problems = collect([a_source(a_file(tmp_path, "a.jsonl", rows))]).problems
    recipe = FilterRecipe(
        drop_question_types=tuple(set(QuestionType) - {QuestionType.COMPUTATION}),
        require_numeric_gold=True,
    )
    filtered = filter_problems(problems, recipe)
    assert [p.id for p in filtered.kept] == ["s/1", "s/4"]
    assert [(d.problem, d.rule, d.reason) for d in filtered.dropped] == [
        ("s/0", "question_type", "proof"),
        ("s/2", "question_type", "multiple_choice"),
        ("s/3", "numeric_gold", "not_numeric"),
    ]
