"""Decontamination: what is the same problem, what only looks like it, and the gate."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from still_core.errors import DataError
from still_core.problems.collect import collect
from still_core.problems.decontaminate import (
    Fingerprint,
    decontaminate,
    duplicates,
    fingerprint,
    fingerprint_benchmarks,
    match_fingerprints,
    require_clean,
    words,
)
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.recipe import DecontaminateRecipe, SourceSpec

FILES = {
    "aime24": "AIME24.jsonl",
    "math-oai": "MATH_OAI.jsonl",
    "aime": "aime_1983_2023_deepscaler.json",
    "math": "math_train_deepscaler.json",
    "gsm8k": "gsm8k_train.jsonl",
    "omni-math": "omni_math_num_500.jsonl",
    "liveaops": "liveaopsbench-2024-8-2024-12-num.jsonl",
    "hmmt": "hmmt_feb_2025.jsonl",
    "amc23": "amc23_test.jsonl",
    "olymmath": "OlymMATH-EN-EASY.jsonl",
}


@pytest.fixture(scope="module")
def load(shared_data: Path) -> Callable[[str], list[Problem]]:
    """Problems of a real file by the name of its adapter."""
    known: dict[str, list[Problem]] = {}

    def problems(name: str) -> list[Problem]:
        if name not in known:
            spec = SourceSpec(name=name, adapter=name, path=str(shared_data / FILES[name]))
            known[name] = collect([spec]).problems
        return known[name]

    return problems


def a_problem(statement: str, gold: str = "1", number: int = 0) -> Problem:
    return Problem(
        id=f"p/{number}",
        statement=statement,
        gold=gold,
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.HARD_MATH,
        source="p",
        row=number,
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"a $9$-kilometer walk", r"a 9-kilometer walk"),
        (r"Find \(x\) in \[x^2=1\]", "Find $x$ in $$x^2=1$$"),
        (r"\dfrac{1}{2} of $\left( a+b \right)$", r"\frac12 of $(a+b)$"),
        (r"$1,\!000$ and $2,000$ apples", "1000 and 2000 apples"),
        (r"$x \leq y$ and $a \neq b$", r"$x\le y$ and $a \ne b$"),
        ("Problem 7. Find x.", "Find x."),
        ("12. Find x.", "Find x."),
        (
            "Find x.\nPlease reason step by step, and put your final answer within \\boxed{}.",
            "Find x",
        ),
        (r"Let $\text{AB}$, $\overline{CD}$", r"Let $\mathrm{AB}$, $\overline{CD}$"),
        ("the angle is $30^\\circ$", "The angle is 30\u00b0."),
        ("sides 3\u20134\u20135\u2026", "sides 3-4-5..."),
        ("\uff11\uff12 \u4e2a\u82f9\u679c", "12\u4e2a\u82f9\u679c"),
    ],
)
def test_dress_makes_no_difference(one: str, other: str) -> None:
    assert fingerprint(a_problem(one)).exact == fingerprint(a_problem(other)).exact


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute $3+4-5$.", "Compute $3-4+5$."),
        ("Compute $2(3+4)$.", "Compute $(2)3+4$."),
        ("Compute $x^2$ at 3.", "Compute $x_2$ at 3."),
        ("Find 12 apples.", "Find 13 apples."),
        ("Is $x < 3$?", "Is $x > 3$?"),
        ("Compute $5!$ now.", "Compute $5$ now."),
    ],
)
def test_what_a_formula_says_makes_a_difference(one: str, other: str) -> None:
    assert fingerprint(a_problem(one)).exact != fingerprint(a_problem(other)).exact


def test_words_split_cjk_by_character() -> None:
    assert words("\u8bbe $x=3$, \u6c42") == ["\u8bbe", "x", "3", "\u6c42"]


def reformat(problem: Problem, rng: random.Random, number: int) -> Problem:
    """The problem as another collection would print it: nothing but dress changes."""
    text = problem.statement
    text = re.sub(r"\\frac", r"\\dfrac", text) if rng.random() < 0.5 else text
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text) if rng.random() < 0.5 else text
    text = re.sub(r"\\\[|\\\]", "$$", text) if rng.random() < 0.5 else text
    text = text.replace("(", r"\left(").replace(")", r"\right)") if rng.random() < 0.2 else text
    text = re.sub(r"\s+", lambda _: rng.choice([" ", "  ", "\n"]), text)
    text = re.sub(r"(\d),(\d{3})", r"\1\2", text)
    text = re.sub(r"\\(\\left|\\right)([()])", r"\\\2", text)
    head = rng.choice(["", f"Problem {number}: ", f"{number}. ", "Question: "])
    tail = rng.choice(
        ["", "\nPlease reason step by step, and put your final answer within \\boxed{}."]
    )
    return replace(
        problem,
        id=f"mixed/{number}",
        statement=head + text + tail,
        gold=f"{int(problem.gold):03d}",
        source="mixed",
    )


def test_aime24_is_found_inside_aime_data_though_formatted_differently(
    load: Callable[[str], list[Problem]],
) -> None:
    for seed in range(5):
        rng = random.Random(seed)
        inside = [reformat(p, rng, n) for n, p in enumerate(load("aime24"), 1)]
        mixed = [*load("aime"), *inside]
        rng.shuffle(mixed)
        report = decontaminate(mixed, {"aime24": load("aime24")})
        assert report.dropped == {p.id for p in inside}
        assert report.benchmarks[0].num_found == 30
        assert len(report.kept) == 975


def test_eightfold_repeats_are_found(
    load: Callable[[str], list[Problem]], shared_data: Path
) -> None:
    spec = SourceSpec(name="e2p", adapter="verl", path=str(shared_data / "e2p_aime8.parquet"))
    repeated = collect([spec]).problems
    groups = duplicates(repeated)
    assert len(groups) == 30
    assert {len(repeats) for repeats in groups.values()} == {7}
    report = decontaminate(load("aime24"), {"e2p": repeated})
    assert (report.benchmarks[0].num_found, report.benchmarks[0].num_repeats) == (240, 210)
    assert len(report.dropped) == 30


@pytest.mark.parametrize(
    ("train", "benchmarks"),
    [
        ("math", ("math-oai", "aime24", "hmmt", "amc23", "olymmath", "liveaops")),
        ("gsm8k", ("math-oai", "aime24", "omni-math", "liveaops", "hmmt")),
    ],
)
def test_training_problems_are_clean_of_benchmarks_that_they_do_not_hold(
    train: str, benchmarks: tuple[str, ...], load: Callable[[str], list[Problem]]
) -> None:
    assert decontaminate(load(train), {name: load(name) for name in benchmarks}).overlaps == []


def test_overlaps_that_exist_are_found(load: Callable[[str], list[Problem]]) -> None:
    def found(train: str, benchmark: str) -> int:
        return decontaminate(load(train), {"b": load(benchmark)}).benchmarks[0].num_found

    # The data's own index counts 316 and 7 by equality of stripped text. The further ones are the
    # same problems with other words, or asking for the answer in another form.
    assert found("math", "aime") == 418
    assert found("math", "omni-math") == 9
    assert found("aime", "math-oai") == 10
    assert found("aime", "liveaops") == 2


def test_problems_of_one_template_are_no_overlap() -> None:
    ask = (
        "How many ways are there to arrange the letters of the word {} in a row so that all differ?"
    )
    train = [a_problem(ask.format("MADAM"), "30"), a_problem(ask.format("TOOT"), "6")]
    assert decontaminate(train, {"b": [a_problem(ask.format("ELLIPSE"), "1260")]}).overlaps == []
    walk = (
        "Aya walks {} kilometers at a constant speed of {} kilometers per hour and stops for {} "
        "minutes in a coffee shop on her way home. How long does the walk take her?"
    )
    train = [a_problem(walk.format(9, 4, 24), "1"), a_problem(walk.format(8, 4, 25), "2")]
    report = decontaminate(train, {"b": [a_problem(walk.format(9, 4, 25), "3")]})
    assert report.overlaps == []


def test_other_signs_under_the_same_words_are_another_problem() -> None:
    ask = (
        "Let $a = 12$ and $b = 35$ be two sides of a triangle in the plane, and $c$ the third "
        "one. Compute the value of $a^2 {} b^2 {} 7c$ when the angle between the two is right."
    )
    one, other = a_problem(ask.format("+", "-"), "1110"), a_problem(ask.format("-", "+"), "-822")
    assert decontaminate([one], {"b": [other]}).overlaps == []
    assert decontaminate([one], {"b": [replace(other, gold=one.gold)]}).overlaps != []


def test_order_changes_nothing(load: Callable[[str], list[Problem]]) -> None:
    train = list(load("aime"))
    expected = decontaminate(train, {"b": load("math-oai")}).dropped
    random.Random(1).shuffle(train)
    shuffled = list(load("math-oai"))
    random.Random(2).shuffle(shuffled)
    assert decontaminate(train, {"b": shuffled}).dropped == expected


def test_fingerprints_survive_a_table_and_find_the_same(
    load: Callable[[str], list[Problem]],
) -> None:
    prints = fingerprint_benchmarks({"math-oai": load("math-oai")})
    again = [Fingerprint.from_row(one.to_row()) for one in prints]
    assert again == prints
    by_text = decontaminate(load("aime"), {"math-oai": load("math-oai")})
    assert match_fingerprints(load("aime"), again).overlaps == by_text.overlaps


def test_fingerprints_hold_no_text(load: Callable[[str], list[Problem]]) -> None:
    row = fingerprint(load("aime24")[0], benchmark="aime24").to_row()
    assert "Aya" not in str(row)
    assert "kilometer" not in str(row)


def test_fingerprints_of_another_length_or_version_are_refused() -> None:
    one = fingerprint(a_problem("Find the number of x with nothing else to say about it."), ngram=5)
    with pytest.raises(DataError, match="n-gram length"):
        match_fingerprints([], [one])
    with pytest.raises(DataError, match="another version"):
        Fingerprint.from_row({**one.to_row(), "version": 0})


def test_the_gate_refuses_overlap_and_names_it() -> None:
    statement = "Find the remainder when the product of all odd numbers below 100 is divided by 7."
    report = decontaminate([a_problem(statement)], {"held-out": [a_problem(statement, number=1)]})
    with pytest.raises(DataError, match="held-out 1 of 1"):
        require_clean(report)
    with pytest.raises(DataError):
        require_clean(report, waiver="  ")
    assert require_clean(report, waiver="A. Person: ablation 3").waiver == "A. Person: ablation 3"
    assert require_clean(report, threshold=1.0).waiver == ""


def test_the_gate_passes_clean_data_without_using_the_waiver() -> None:
    report = decontaminate([a_problem("Find x.")], {"b": [a_problem("Find y.")]})
    assert require_clean(report, waiver="nobody needed it").waiver == ""


def test_empty_and_wordless_statements_match_nothing() -> None:
    blank = [a_problem("$$ $$", number=1), a_problem("![](x.png)", number=2)]
    report = decontaminate([a_problem("\\[ \\]")], {"b": blank[:1]})
    assert report.overlaps == []


def test_containment_is_a_recipe_field() -> None:
    long = "Ann has 12 red and 15 blue marbles in a bag and draws two at random without looking"
    cut = f"{long} into it. What is the chance of two of one colour, given 27 in all?"
    other = f"{long} and a third one later. Which colour is it, given that 27 were there at first?"
    loose, strict = DecontaminateRecipe(containment=0.3), DecontaminateRecipe(containment=0.9)
    assert decontaminate([a_problem(other)], {"b": [a_problem(cut)]}, recipe=loose).overlaps
    assert not decontaminate([a_problem(other)], {"b": [a_problem(cut)]}, recipe=strict).overlaps


REWRITTEN: dict[str, Callable[[str], str]] = {
    "asked as a chat": lambda s: (
        "Solve this math problem. The last line of your answer is of the form Answer: X.\n\n"
        f"{s}\n\nPut your answer on its own line."
    ),
    "formulas as plain text": lambda s: (
        re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", s.replace("$", ""))
        .replace("\\le ", "<= ")
        .replace("\\pi", "\u03c0")
        .replace("^2", "\u00b2")
    ),
    "as a web page": lambda s: f"<p>{s.replace('<', '&lt;')}</p>".replace("\n", "<br/>"),
    "one word less": lambda s: " ".join(w for i, w in enumerate(s.split()) if i != 4),
    "upper case": str.upper,
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_benchmark_written_otherwise_is_found(
    name: str, load: Callable[[str], list[Problem]]
) -> None:
    benchmark = load("math-oai")
    rewritten = [
        replace(one, id=f"t/{one.row}", statement=REWRITTEN[name](one.statement))
        for one in benchmark
    ]
    found = len(decontaminate(rewritten, {"b": benchmark}).dropped)
    least = {"one word less": 0.85}.get(name, 0.95)
    assert found >= least * len(benchmark), found
