"""Evaluated answers and what they add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from still_core.errors import DataError
from still_core.evaluate.answers import (
    EvaluatedAnswer,
    group_by,
    rates_by_difficulty,
    relative_gain,
    score,
    score_benchmarks,
    scores_by_problem,
    thought_length,
)
from still_core.evaluate.recipe import EvaluateRecipe
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.responses.prompts import prompt
from still_core.rollout.rollout import FinishReason, Rollout, Sampling


def answer(problem: str, outcome: str = "correct", **changes: object) -> EvaluatedAnswer:
    """One answer of a made-up model."""
    plain = EvaluatedAnswer(
        benchmark="arithmetic-normal",
        level="normal",
        problem_id=problem,
        domain="arithmetic",
        difficulty=2.0,
        sample_index=0,
        outcome=outcome,
        extracted="7",
        truncated=False,
        thought_tokens=10,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_score_by_hand() -> None:
    total = score(
        [
            answer("a"),
            answer("b", "wrong", thought_tokens=0),
            answer("c", "timeout", thought_tokens=20),
            answer("d", "no_answer", thought_tokens=50, truncated=True),
        ]
    )
    assert (total.accuracy, total.n, total.num_samples) == (0.25, 4, 4)
    assert (total.thought_tokens, total.truncated_rate) == (20.0, 0.25)
    assert total.outcomes == {"correct": 1, "no_answer": 1, "timeout": 1, "wrong": 1}
    assert list(total.outcomes) == sorted(total.outcomes)


def test_several_samples_of_a_problem_are_averaged_before_the_mean() -> None:
    answers = [answer("a"), answer("a", "wrong", sample_index=1), answer("b")]
    assert scores_by_problem(answers) == {"arithmetic-normal/a": 0.5, "arithmetic-normal/b": 1.0}
    assert (score(answers).accuracy, score(answers).n) == (0.75, 2)


def test_equal_problem_ids_of_two_benchmarks_are_two_problems() -> None:
    answers = [answer("0"), answer("0", "wrong", benchmark="choices-normal")]
    assert score(answers).n == 2
    assert {name: each.accuracy for name, each in score_benchmarks(answers).items()} == {
        "arithmetic-normal": 1.0,
        "choices-normal": 0.0,
    }
    assert list(group_by(answers, lambda each: each.benchmark)) == [
        "arithmetic-normal",
        "choices-normal",
    ]


def test_no_answers_is_an_error() -> None:
    with pytest.raises(DataError):
        score([])


def test_rates_by_difficulty_are_sorted_and_skip_the_unknown() -> None:
    rates = rates_by_difficulty(
        "SFT",
        [
            answer("a", difficulty=6.0),
            answer("b", difficulty=2.0),
            answer("c", "wrong", difficulty=2.0),
            answer("d", difficulty=None),
        ],
    )
    assert [(rate.difficulty, rate.accuracy, rate.n) for rate in rates] == [(2, 0.5, 2), (6, 1, 1)]


def test_relative_gain_reproduces_the_papers_table() -> None:
    assert relative_gain(0.902, 0.800) == pytest.approx(12.75)
    assert relative_gain(0.467, 0.133) == pytest.approx(251.1, abs=0.1)
    # The paper prints +153.8 for 33.3 over 13.3, which is 150.4.
    assert relative_gain(0.333, 0.133) == pytest.approx(150.4, abs=0.1)
    assert relative_gain(0.5, 0.0) is None


@pytest.mark.parametrize(
    ("asked", "text", "length"),
    [
        ("bare", "<|begin_of_thought|>\na b c\n<|end_of_thought|>\n\n<|begin_of_solution|>", 3),
        ("bare", "<|begin_of_thought|>\na b c d", 4),
        ("bare", "a b\n<|end_of_thought|>\n\nsolution", 2),
        ("bare", "the answer is 7", 0),
        ("bare", "<|begin_of_thought|><|end_of_thought|>", 0),
        ("still-3-short", "\na b c\n</think>\n<answer>\n7\n</answer>", 3),
        ("still-3-short", "\na b c d", 4),
        ("still-3-short", "\n</think>\n<answer>7", 0),
    ],
)
def test_thought_length_reads_whole_cut_and_missing_thoughts(
    asked: str, text: str, length: int
) -> None:
    assert thought_length(text, prompt(asked), str.split) == length


PROBLEM = Problem(
    id="s/1",
    statement="1+1",
    gold="2",
    kind=AnswerKind.MATH,
    domain="arithmetic",
    bucket=Bucket.NORMAL_MATH,
    source="s",
    row=1,
    level=2.0,
)
ROLLOUT = Rollout(
    id="r",
    problem_id="s/1",
    problem_digest=PROBLEM.digest,
    policy_digest="m",
    policy_version=0,
    prompt_digest="p",
    sampling_digest="g",
    engine_build="e",
    sample_index=0,
    seed=1,
    text="2",
    token_ids=(1,),
    logprobs=(-0.1,),
    finish_reason=FinishReason.LENGTH,
    outcome="wrong",
    extracted="3",
)


def test_an_answer_takes_after_its_problem_and_rollout_and_survives_a_row() -> None:
    made = EvaluatedAnswer.of(PROBLEM, ROLLOUT, benchmark="b", level="hard", thought_tokens=4)
    assert (made.truncated, made.correct, made.difficulty, made.gold) == (True, False, 2.0, "2")
    assert EvaluatedAnswer.from_row({**made.to_row(), "other": 1}) == made
    unknown = replace(made, difficulty=None, thought_valid=True)
    assert EvaluatedAnswer.from_row({**unknown.to_row(), "difficulty": float("nan")}) == unknown


def test_a_rollout_of_the_same_problem_under_another_id_answers_it_too() -> None:
    banked = replace(ROLLOUT, problem_id="another-source/7")
    made = EvaluatedAnswer.of(PROBLEM, banked, benchmark="b", level="hard", thought_tokens=4)
    assert made.problem_id == PROBLEM.id


@pytest.mark.parametrize("change", [{"problem_digest": "0" * 64}, {"outcome": ""}])
def test_an_answer_refuses_strangers_and_the_unverified(change: dict[str, str]) -> None:
    with pytest.raises(DataError):
        EvaluatedAnswer.of(
            PROBLEM,
            replace(ROLLOUT, **change),
            benchmark="b",
            level="hard",
            thought_tokens=0,
        )


GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=10)


def test_a_recipe_selects_all_benchmarks_or_those_it_names() -> None:
    assert EvaluateRecipe(sampling=GREEDY).selects("anything")
    assert not EvaluateRecipe(sampling=GREEDY, benchmarks=("a",)).selects("b")


def test_several_greedy_samples_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_samples"):
        EvaluateRecipe(num_samples=4, sampling=GREEDY)
    assert EvaluateRecipe(num_samples=4, sampling=Sampling(max_tokens=10)).num_samples == 4
