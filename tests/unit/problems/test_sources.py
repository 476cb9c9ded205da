"""Every adapter: the real files, and rows in each public form of what is not at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import ConfigError
from still_core.problems.collect import Collection, collect
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.recipe import SourceSpec
from still_core.problems.sources import ADAPTERS

REAL_FILES: dict[str, tuple[str, int, int]] = {
    # file: (adapter, rows, problems)
    "AIME24.jsonl": ("aime24", 30, 30),
    "MATH_OAI.jsonl": ("math-oai", 500, 500),
    "OlymMATH-EN-EASY.jsonl": ("olymmath", 100, 100),
    "aime_1983_2023_deepscaler.json": ("aime", 975, 975),
    "amc23_test.jsonl": ("amc23", 40, 40),
    "e2p_aime8.parquet": ("verl", 240, 240),
    "e2p_amc.parquet": ("verl", 83, 83),
    # 5 of 124 chemistry questions show a picture.
    "gaokao_Chemistry_MCQs.json": ("gaokao", 124, 119),
    "gaokao_Physics_MCQs.json": ("gaokao", 64, 64),
    "gsm8k_train.jsonl": ("gsm8k", 7473, 7473),
    "hmmt_feb_2025.jsonl": ("hmmt", 30, 30),
    "huatuo_o1_demo.jsonl": ("huatuo", 105, 105),
    # 24 of 93 contest problems are Hard.
    "leetcode_20240121-Jul.jsonl": ("leetcode", 93, 24),
    "liveaopsbench-2024-8-2024-12-num.jsonl": ("liveaops", 519, 519),
    # 4 of 7474 have no answer.
    "math_train_deepscaler.json": ("math", 7474, 7470),
    "omni_math_num_500.jsonl": ("omni-math", 500, 500),
    "HumanEval.jsonl.gz": ("humaneval", 164, 164),
    "mbpp_test.jsonl": ("mbpp", 500, 500),
}


def read(path: Path, adapter: str, **options: Any) -> Collection:
    return collect([SourceSpec(name="s", adapter=adapter, path=str(path), **options)])


def read_row(row: Any, adapter: str, tmp_path: Path, **options: Any) -> Collection:
    file = tmp_path / options.pop("file", "rows.json")
    file.write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    return read(file, adapter, **options)


def problem_of(row: Any, adapter: str, tmp_path: Path, **options: Any) -> Problem:
    found = read_row(row, adapter, tmp_path, **options)
    assert found.quarantined == []
    (problem,) = found.problems
    return problem


@pytest.mark.parametrize("name", REAL_FILES)
def test_every_row_of_a_real_file_is_accounted_for(name: str, shared_data: Path) -> None:
    adapter, rows, problems = REAL_FILES[name]
    found = read(shared_data / name, adapter)
    (count,) = found.counts
    assert (count.rows_in, count.kept, count.quarantined) == (rows, problems, {})
    assert count.adds_up
    assert len(found.problems) == problems
    assert len({problem.id for problem in found.problems}) == problems
    for problem in found.problems:
        assert problem.statement.strip()
        assert problem.gold.strip()
        assert "| Assistant |" not in problem.statement
        assert Problem.from_row(problem.to_row()) == problem


def test_all_sources_and_benchmarks_of_the_issue_have_an_adapter() -> None:
    sources = "numina aime leetcode opencoder camel gaokao riddlesense math orz openthoughts"
    benchmarks = (
        "math-oai aime24 aime25 gpqa omni-math liveaops hmmt olymmath amc23 minerva olympiadbench "
        "livemathbench ksat"
    )
    assert set(f"{sources} {benchmarks} generic".split()) <= set(ADAPTERS)


def test_boxes_in_math_oai_solutions_equal_the_answers(shared_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "MATH_OAI.jsonl").open()]
    bare = tmp_path / "rows.jsonl"
    without = [{k: v for k, v in row.items() if k != "answer"} for row in rows]
    bare.write_text("".join(json.dumps(row) + "\n" for row in without))
    golds = [problem.gold for problem in read(bare, "math").problems]
    assert golds == [row["answer"].strip() for row in rows]


def test_aime24_golds_are_the_bare_boxes(shared_data: Path) -> None:
    problems = read(shared_data / "AIME24.jsonl", "aime24").problems
    assert [p.gold for p in problems[:3]] == ["204", "113", "371"]
    assert {p.solution for p in problems} == {""}
    assert {p.bucket for p in problems} == {Bucket.HARD_MATH}


def test_e2p_files_agree_with_their_sources(shared_data: Path) -> None:
    known = {p.statement: p.gold for p in read(shared_data / "AIME24.jsonl", "aime24").problems}
    repeated = read(shared_data / "e2p_aime8.parquet", "verl").problems
    assert Counter(p.statement for p in repeated).most_common()[-1][1] == 8
    # 18 of the 30 statements are equal to the letter, the others in white space or a link.
    shared = [p for p in repeated if p.statement in known]
    assert len(shared) == 18 * 8
    assert all(int(p.gold) == int(known[p.statement]) for p in shared)
    assert {p.gold for p in read(shared_data / "e2p_amc.parquet", "verl").problems} >= {"142"}


def test_numina_keeps_the_math_and_olympiads_subsets(tmp_path: Path) -> None:
    rows = [
        {"source": "math", "problem": "p1", "solution": r"so $\boxed{\frac{1}{2}}$"},
        {"source": "olympiads", "problem": "p2", "solution": r"\boxed{3}"},
        {"source": "olympiads", "problem": "Prove it.", "solution": "Clear."},
        {"source": "cn_k12", "problem": "p4", "solution": r"\boxed{3}"},
        {"source": "olympiads", "problem": "p5", "answer": "proof", "solution": "..."},
        {
            "source": "olympiads",
            "problem": "p6",
            "answer": "B",
            "question_type": "MCQ",
            "problem_is_valid": "Yes",
            "solution": "",
        },
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(file, "numina")
    assert [(p.gold, str(p.bucket), str(p.kind)) for p in found.problems] == [
        (r"\frac{1}{2}", "normal_math", "math"),
        ("3", "hard_math", "math"),
        ("B", "hard_math", "choice"),
    ]
    assert found.counts[0].filtered == {"no_gold": 1, "other_subset": 1, "proof": 1}
    assert found.problems[0].licence == "Apache-2.0"
    assert len(read(file, "numina", subsets=("cn_k12",)).problems) == 1


def test_aime_csv_leaves_out_the_benchmark_years(tmp_path: Path) -> None:
    file = tmp_path / "AIME_Dataset_1983_2024.csv"
    file.write_text(
        "ID,Year,Problem Number,Question,Answer,Part\n"
        '1983-1,1983,1,"Let $x$, $y$\nbe given. Find it.",060,\n'
        "2024-I-1,2024,1,Every morning Aya,204,I\n"
    )
    found = read(file, "aime")
    assert [(p.statement, p.gold) for p in found.problems] == [
        ("Let $x$, $y$\nbe given. Find it.", "060")
    ]
    assert found.counts[0].filtered == {"year": 1}
    assert len(read(file, "aime", year_max=2024).problems) == 2


@pytest.mark.parametrize(
    "row",
    [
        [
            {"from": "human", "value": "What is 2+2?"},
            {"from": "assistant", "ground_truth": {"value": "4", "pass_at_n": 0.75}},
        ],
        {
            "0": {"from": "human", "value": "What is 2+2?"},
            "1": {"from": "assistant", "ground_truth": {"value": "4", "pass_at_n": 0.75}},
        },
    ],
    ids=["file", "hub"],
)
def test_open_reasoner_zero_in_both_forms(row: Any, tmp_path: Path) -> None:
    problem = problem_of(row, "orz", tmp_path)
    assert (problem.statement, problem.gold, problem.level) == ("What is 2+2?", "4", 0.25)


def test_openthoughts_metadata_form_brings_thought_and_solution(tmp_path: Path) -> None:
    row = {
        "problem": "Return your final response within \\boxed{}. What is 2+2?",
        "deepseek_reasoning": "Two and two...",
        "deepseek_solution": r"It is \boxed{4}.",
        "ground_truth_solution": r"Add: $\boxed{4}$",
        "domain": "math",
        "source": "numina_math",
        "test_cases": None,
        "starter_code": None,
    }
    found = read_row(row, "openthoughts", tmp_path)
    (response,) = found.responses
    assert (response.problem.statement, response.problem.gold) == ("What is 2+2?", "4")
    assert (response.reasoning, response.text) == ("Two and two...", r"It is \boxed{4}.")
    assert (response.teacher, response.id, response.row) == ("DeepSeek-R1", "s/0", 0)


def test_openthoughts_conversation_form(tmp_path: Path) -> None:
    written = (
        "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n\\boxed{4}\n\n<|end_of_solution|>"
    )
    row = {
        "system": "Your role ...",
        "conversations": [
            {"from": "user", "value": "What is 2+2?"},
            {"from": "assistant", "value": written},
        ],
    }
    found = read_row(row, "openthoughts", tmp_path)
    assert found.problems[0].gold == "4"
    assert found.responses[0].text == written


def test_camel_takes_the_subject_from_the_role_and_the_value_from_the_last_paragraph(
    tmp_path: Path,
) -> None:
    row = {
        "role_1": "Physicist_RoleType.ASSISTANT",
        "topic;": "Kinematics",
        "sub_topic": "Free fall",
        "message_1": "A stone falls for 2 s. How fast is it?",
        "message_2": "We use v = gt.\n\nThe speed after 2 s is 19.6 m/s.",
    }
    problem = problem_of(row, "camel", tmp_path)
    assert (problem.domain, problem.gold, problem.kind) == ("physics", "19.6 m/s", "math")
    prose = {**row, "role_1": "Biologist", "message_2": "Cells divide.\n\nThis keeps them alive."}
    assert read_row(prose, "camel", tmp_path).counts[0].filtered == {"no_gold": 1}


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": "1",
            "answerKey": "B",
            "question": {
                "stem": "What has keys but no locks?",
                "choices": [{"label": "A", "text": "a door"}, {"label": "B", "text": "a piano"}],
            },
        },
        {
            "answerKey": "B",
            "question": "What has keys but no locks?",
            "choices": {"label": ["A", "B"], "text": ["a door", "a piano"]},
        },
    ],
    ids=["file", "hub"],
)
def test_riddlesense_in_both_forms(row: Any, tmp_path: Path) -> None:
    problem = problem_of(row, "riddlesense", tmp_path)
    assert problem.statement == "What has keys but no locks?\n\nA. a door\nB. a piano"
    assert (problem.gold, problem.choices, problem.domain) == ("B", ("a door", "a piano"), "puzzle")


def test_riddlesense_test_split_has_no_gold(tmp_path: Path) -> None:
    row = {"answerKey": "", "question": "q", "choices": {"label": ["A", "B"], "text": ["x", "y"]}}
    assert read_row(row, "riddlesense", tmp_path).counts[0].filtered == {"no_gold": 1}


def test_gpqa_without_an_order_puts_the_answer_at_a_stable_place(tmp_path: Path) -> None:
    places = Counter[str]()
    for number in range(200):
        row = {
            "Question": f"Which of these is {number}?",
            "Correct Answer": "right",
            "Incorrect Answer 1": "w1",
            "Incorrect Answer 2": "w2",
            "Incorrect Answer 3": "w3",
            "Subdomain": "Organic Chemistry",
            "High-level domain": "Chemistry",
        }
        problem = problem_of(row, "gpqa", tmp_path)
        assert problem.choices["ABCD".index(problem.gold)] == "right"
        assert f"{problem.gold}. right" in problem.statement
        assert problem.domain == "chemistry"
        places[problem.gold] += 1
    assert min(places[letter] for letter in "ABCD") > 30


def test_gpqa_with_lettered_options_keeps_them(tmp_path: Path) -> None:
    row = {"question": "Which?\n(A) one\n(B) two\n(C) three\n(D) four", "answer": "C"}
    problem = problem_of(row, "gpqa", tmp_path)
    assert (problem.gold, problem.choices) == ("C", ("one", "two", "three", "four"))
    assert problem.statement == row["question"]


def test_gaokao_reads_several_right_letters(shared_data: Path) -> None:
    problems = read(shared_data / "gaokao_Physics_MCQs.json", "gaokao").problems
    assert {len(p.choices) for p in problems} == {4}
    assert {p.domain for p in problems} == {"physics"}
    assert problems[3].gold == "AC"


def test_leetcode_tests_are_the_gold(shared_data: Path) -> None:
    problems = read(shared_data / "leetcode_20240121-Jul.jsonl", "leetcode").problems
    gold = json.loads(problems[0].gold)
    assert gold["language"] == "python"
    assert "assert my_solution" in gold["tests"][0]
    assert {p.kind for p in problems} == {AnswerKind.CODE}
    everything = read(
        shared_data / "leetcode_20240121-Jul.jsonl", "leetcode", subsets=("Easy", "Medium", "Hard")
    )
    assert len(everything.problems) == 93


def test_code_golds_accept_the_reference_solutions(shared_data: Path) -> None:
    for name, adapter in (("HumanEval.jsonl.gz", "humaneval"), ("mbpp_test.jsonl", "mbpp")):
        problems = read(shared_data / name, adapter).problems[:12]
        assert len(problems) == 12
        for problem in problems:
            gold = json.loads(problem.gold)
            program = "\n".join([gold["prelude"], problem.solution, *gold["tests"]])
            # Reference solutions of two public data sets, not model text.
            exec(compile(program, name, "exec"), {})


def test_opencoder_rows_without_tests_are_left_out(tmp_path: Path) -> None:
    row = {
        "seq_id": 1,
        "instruction": "Write f.",
        "output": "```python\ndef f(): return 1\n```",
        "code": "def f(): return 1",
        "entry_point": "f",
        "testcase": ["assert f() == 1"],
    }
    problem = problem_of(row, "opencoder", tmp_path)
    assert json.loads(problem.gold)["tests"] == ["assert f() == 1"]
    without = {"instruction": "Write g.", "output": "x", "tag": "t"}
    assert read_row(without, "opencoder", tmp_path).counts[0].filtered == {"no_gold": 1}


def test_olympiadbench_leaves_out_pictures_and_joins_answers(tmp_path: Path) -> None:
    row = {
        "question": "Find x.",
        "context": None,
        "solution": ["First.", "Second."],
        "final_answer": ["$2$"],
        "modality": "Text-only",
        "question_type": "Open-ended",
        "subject": "Math",
        "image_1": None,
    }
    problem = problem_of(row, "olympiadbench", tmp_path)
    assert (problem.gold, problem.solution) == ("2", "First.\n\nSecond.")
    picture = {**row, "modality": "Multimodal"}
    assert read_row(picture, "olympiadbench", tmp_path).counts[0].filtered == {"picture": 1}


@pytest.mark.parametrize(
    ("adapter", "row", "gold"),
    [
        ("aime25", {"question": "q", "answer": "70"}, "70"),
        ("aime25", {"problem": "q", "solution": r"\boxed{70}"}, "70"),
        ("aime24", {"ID": "2024-I-1", "Problem": "q", "Solution": "s", "Answer": 204}, "204"),
        ("minerva", {"problem": "q", "type": "OCW", "solution": r"so \boxed{1e-3}"}, "1e-3"),
        ("livemathbench", {"question": "q", "answer": "$x^2$", "question_type": "x"}, "$x^2$"),
        ("ksat", {"question": "q", "answer": 3, "score": 4}, "3"),
        ("hmmt", {"problem": "q", "answer": r"\frac{1}{576}"}, r"\frac{1}{576}"),
        ("amc23", {"problem": "q", "answer": 27.0}, "27"),
        ("liveaops", {"question": "q", "answers": ["6"], "answer": None}, "6"),
    ],
)
def test_benchmarks_in_their_other_public_forms(
    adapter: str, row: dict[str, Any], gold: str, tmp_path: Path
) -> None:
    assert problem_of(row, adapter, tmp_path).gold == gold


def test_generic_reads_any_row_by_a_field_map(tmp_path: Path) -> None:
    row = {"q": {"text": "What?"}, "a": ["x", 7], "runs": ["r one", "r two"], "by": "M"}
    fields = {"statement": "q.text", "gold": "a.1", "response": "runs", "teacher": "by"}
    found = read_row(row, "generic", tmp_path, fields=fields, domain="medicine")
    (problem,) = found.problems
    assert (problem.statement, problem.gold, problem.domain) == ("What?", "7", "medicine")
    assert problem.bucket is Bucket.OTHER
    assert [(one.id, one.text, one.teacher) for one in found.responses] == [
        ("s/0#0", "r one", "M"),
        ("s/0#1", "r two", "M"),
    ]


def test_a_problem_survives_the_generic_adapter(tmp_path: Path) -> None:
    problem = problem_of({"question": "q", "answer": 3, "score": 4}, "ksat", tmp_path)
    again = problem_of(problem.to_row(), "generic", tmp_path)
    assert (again.statement, again.gold, again.level) == ("q", "3", 4.0)


def test_a_wrong_field_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key in the field map"):
        read_row({"q": "x"}, "generic", tmp_path, fields={"statment": "q"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "#### 3"}, "missing_field"),
        ({"question": None, "answer": "#### 3"}, "missing_field"),
        ({"question": ["x"], "answer": "#### 3"}, "mistyped_field"),
        ({"question": "   ", "answer": "#### 3"}, "empty_field"),
        ({"question": "q", "answer": 3}, "mistyped_field"),
        ("text", "not_an_object"),
        (None, "not_an_object"),
        ([1], "not_an_object"),
    ],
)
def test_missing_and_mistyped_fields_are_quarantined(row: Any, reason: str, tmp_path: Path) -> None:
    found = read_row(row, "gsm8k", tmp_path)
    assert [(one.line, one.reason) for one in found.quarantined] == [(1, reason)]


@pytest.mark.parametrize(
    ("cases", "key", "expected"),
    [
        ({"inputs": ["1 2\n"], "outputs": ["3\n"]}, "stdin", [["1 2\n", "3\n"]]),
        (
            {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]},
            "tests",
            ["assert add(1, 2) == 3"],
        ),
    ],
    ids=["programs", "calls"],
)
def test_openthoughts_code_is_judged_by_its_cases(
    cases: dict[str, Any], key: str, expected: list[Any], tmp_path: Path
) -> None:
    row = {
        "problem": "Add two numbers.",
        "deepseek_reasoning": "...",
        "deepseek_solution": "```python\n...\n```",
        "domain": "code",
        "test_cases": json.dumps(cases),
    }
    problem = problem_of(row, "openthoughts", tmp_path)
    assert problem.kind is AnswerKind.CODE
    assert json.loads(problem.gold)[key] == expected
    broken = {**row, "test_cases": '{"inputs": ["1"], "outputs": []}'}
    assert [q.reason for q in read_row(broken, "openthoughts", tmp_path).quarantined] == [
        "mistyped_field"
    ]


def test_a_huatuo_row_may_lack_response_or_ground_truth(tmp_path: Path) -> None:
    asked = {"Open-ended Verifiable Question": "Which nerve?", "Ground-True Answer": "The median"}
    (problem,) = read_row(asked, "huatuo", tmp_path).problems
    assert problem.gold == "The median"
    told = {"Question": "Which nerve?", "Complex_CoT": "Think.", "Response": "The median."}
    assert read_row(told, "huatuo", tmp_path).counts[0].filtered == {"no_gold": 1}


def test_an_aime_row_may_hold_its_year_in_its_id(tmp_path: Path) -> None:
    row = {"ID": "1999-II-3", "Question": "q", "Answer": "33"}
    assert read_row(row, "aime", tmp_path).counts[0].kept == 1
    assert read_row(row | {"ID": "2024-I-1"}, "aime", tmp_path).counts[0].filtered == {"year": 1}


@pytest.mark.parametrize("adapter", ["ksat", "generic"])
def test_choices_of_their_own_field_are_shown_in_the_statement(
    adapter: str, tmp_path: Path
) -> None:
    row = {"statement": "Which is even?", "question": "Which is even?", "choices": ["1", "2", "3"]}
    (problem,) = read_row(row | {"answer": 2, "gold": "B"}, adapter, tmp_path).problems
    assert problem.statement == "Which is even?\n\nA. 1\nB. 2\nC. 3"
    assert (problem.gold, problem.choices) == ("B", ("1", "2", "3"))
