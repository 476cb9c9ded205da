"""The generator: pure, distinct, disjoint splits, right gold by an independent reckoning."""

from __future__ import annotations

import json
import re

import pytest

from still_core.errors import ConfigError
from still_core.miniature.problems import DOMAINS, Arithmetic, Code, Puzzle, generate, parse


def _reckon(statement: str) -> str:
    """The answer, worked out from the text alone by another way than the generator's."""
    if statement.endswith("total?"):
        return str(sum(int(n) for n in re.findall(r"(?<=[a-p])[+-]?\d+", statement)))
    arrows = dict(pair.split(">") for pair in re.findall(r"[a-p]>[a-p]", statement))
    node, hops = re.search(r" ([a-p]) (\d) hops", statement).groups()  # type: ignore[union-attr]
    for _ in range(int(hops)):
        node = arrows[node]
    return "ABCDEFGHI"["abcdefghi".index(node)]


@pytest.mark.parametrize("level", ["normal", "hard"])
@pytest.mark.parametrize("domain", ["arithmetic", "puzzle"])
def test_gold_answers_agree_with_an_independent_reckoning(domain: str, level: str) -> None:
    for problem in generate(domain, level, 300, seed=5):
        assert problem.gold == _reckon(problem.statement)


def test_code_gold_accepts_the_right_function_and_refuses_another() -> None:
    for problem in generate("code", "normal", 50, seed=5):
        scope: dict[str, object] = {}
        question = parse(problem.statement)
        exec(question.answer().replace("def f(x): ", "def f(x):\n    "), scope)
        tests = json.loads(problem.gold)["tests"]
        for test in tests:
            exec(test, scope)
        scope["f"] = lambda x: 123456
        with pytest.raises(AssertionError):
            exec(tests[0], scope)


def test_hand_computed_questions() -> None:
    chain = Arithmetic(start=527, terms=(40, -3))
    assert chain.statement() == "a527 b+40 c-3 total?"
    assert chain.steps() == ["a=527", "b+40=567", "c-3=564"]
    assert chain.answer() == "564"
    ring = Puzzle(arrows=("c", "a", "b"), start="b", hops=2)
    assert ring.statement() == "a>c b>a c>b b 2 hops?"
    assert ring.steps() == ["b>a", "a>c"]
    assert ring.answer() == "c"
    program = Code(operations=(("add", 7), ("mul", 2)))
    assert program.answer() == "def f(x): x=x+7; x=x*2; return x"
    assert program.apply(3) == 20


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_same_seed_same_problems_and_more_extends_fewer(domain: str) -> None:
    few, many = generate(domain, "hard", 40, seed=1), generate(domain, "hard", 60, seed=1)
    assert many[:40] == few
    assert generate(domain, "hard", 40, seed=2) != few


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_splits_and_seeds_share_no_statement(domain: str) -> None:
    train = [p.statement for seed in range(3) for p in generate(domain, "normal", 300, seed=seed)]
    held = {p.statement for p in generate(domain, "normal@held-out", 300, seed=0)}
    dev = {p.statement for p in generate(domain, "normal", 300, seed=0, split="dev")}
    assert len(held) == len(dev) == 300
    assert not held & set(train)
    assert not dev & set(train)
    assert not held & dev


def test_totals_stay_within_three_digits_and_lengths_in_their_range() -> None:
    for problem in generate("arithmetic", "hard", 300, seed=3):
        question = parse(problem.statement)
        assert isinstance(question, Arithmetic)
        assert all(100 <= total <= 999 for total in question.totals())
        low, high = DOMAINS["arithmetic"].lengths["hard"]
        assert low <= problem.level <= high


def test_excluded_statements_do_not_appear() -> None:
    first = generate("puzzle", "hard", 20, seed=1)
    again = generate("puzzle", "hard", 20, seed=1, exclude=[p.statement for p in first[:10]])
    assert [p.statement for p in again][:10] == [p.statement for p in first[10:]]


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_a_statement_can_be_read_back(domain: str) -> None:
    for problem in generate(domain, "hard", 100, seed=9):
        assert parse(problem.statement).statement() == problem.statement


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("algebra", "hard", 1, 0), "unknown miniature domain"),
        (("puzzle", "easy", 1, 0), "unknown miniature level"),
        (("puzzle", "hard@test", 1, 0), "unknown miniature split"),
    ],
)
def test_unknown_names_are_one_clear_line(arguments: tuple[str, str, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        generate(*arguments)


def test_asking_for_more_than_there_is_ends() -> None:
    with pytest.raises(ConfigError, match="no more distinct problems"):
        generate("code", "normal", 500, seed=0, lengths=(1, 1))
