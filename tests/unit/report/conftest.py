"""A made-up but realistic run: three domains, two levels, a backbone and three trained models."""

from __future__ import annotations

import random

import pytest

from still_core.evaluate.answers import EvaluatedAnswer
from still_core.refine.funnel import Funnel
from still_core.report.build import (
    ModelEvaluation,
    build_difficulty_rates,
    build_rows,
    choose_samples,
)
from still_core.report.data import (
    AttemptRate,
    BenchmarkOverlap,
    Curve,
    ExploreRound,
    FunnelTable,
    ReportData,
    StageTime,
    UnsolvedProblem,
)

HOSTILE = "</pre><script>alert(1)</script> & <img src=x onerror=alert(2)> ```\n# Owned | $x$ \u202e"
# (method, distilled, explored, chance on the normal level, chance on the hard level)
MODELS = (
    ("Backbone", 0, 0, 0.30, 0.03),
    ("SFT", 320, 0, 0.80, 0.24),
    ("SFT", 320, 180, 0.86, 0.37),
    ("SFT", 320, 410, 0.88, 0.46),
)


def make_answers(
    model: int, normal: float, hard: float, problems: int
) -> tuple[EvaluatedAnswer, ...]:
    """Answers whose chance falls with difficulty; the same problem has the same luck for all."""
    answers = []
    for domain in ("arithmetic", "choices"):
        for level, chance in (("normal", normal), ("hard", hard)):
            for number in range(problems):
                luck = random.Random(f"{domain}/{level}/{number}").random()
                noise = random.Random(f"{model}/{domain}/{level}/{number}")
                steps = noise.randint(2, 5) if level == "normal" else noise.randint(6, 14)
                chance_here = min(1.0, chance * (1.25 - 0.02 * steps))
                right = 0.8 * luck + 0.2 * noise.random() < chance_here
                truncated = not right and model > 0 and noise.random() < 0.2
                thought = 0 if model == 0 else 9 * steps + noise.randint(-6, 6)
                lines = "\n".join(f"a{k} {k * 7}" for k in range(steps))
                answers.append(
                    EvaluatedAnswer(
                        benchmark=f"{domain}-{level}",
                        level=level,
                        problem_id=f"{domain}/{level}/{number}",
                        domain=domain,
                        difficulty=float(steps),
                        sample_index=0,
                        outcome="correct" if right else "no_answer" if truncated else "wrong",
                        extracted=None if truncated else str(number),
                        truncated=truncated,
                        thought_tokens=thought,
                        thought_valid=noise.random() < 0.97 if model else None,
                        statement=f"a4 b{number} c8 d2",
                        gold=str(number),
                        text=HOSTILE
                        if number == 3
                        else f"<|begin_of_thought|>\n{lines}\n<|end_of_thought|>\n\n"
                        f"<|begin_of_solution|>\n\\boxed{{{number}}}\n<|end_of_solution|>",
                    )
                )
    return tuple(answers)


ATTEMPTS = tuple(
    AttemptRate(
        attempt=number,
        tried=125 - 5 * number,
        solved=5,
        rate=5 / (125 - 5 * number),
        cumulative=5 * number / 120,
    )
    for number in range(1, 19)
)
"""Of 120 problems, five solved by each attempt."""


def make_report(problems: int = 150) -> ReportData:
    """The whole made-up report."""
    models = [
        ModelEvaluation(
            method=method,
            distill=distill,
            explore=explore,
            round=max(index - 1, 0),
            answers=make_answers(index, normal, hard, problems),
        )
        for index, (method, distill, explore, normal, hard) in enumerate(MODELS)
    ]
    return ReportData(
        run="still-2-miniature-7",
        recipe_name="miniature",
        recipe={"name": "miniature", "seed": 7, "rounds": 2, "sft": {"learning_rate": 1e-3}},
        rows=build_rows(models),
        stages=(
            StageTime(name="collect problems", seconds=1.2, cached=False),
            StageTime(name="distil and unify demonstrations", seconds=2.9, cached=True),
            StageTime(name="sft M_1", seconds=61.0, cached=False),
            StageTime(name="explore round 1", seconds=122.4, cached=False),
            StageTime(name="evaluate M_1", seconds=33.1, cached=False),
        ),
        funnels=(
            FunnelTable.of(
                "D_0",
                Funnel()
                .step("verify", 430, {"wrong": 70})
                .step("clean", 320, {"repetition": 60, "gibberish": 30, "duplicate": 20}),
            ),
        ),
        difficulty_rates=build_difficulty_rates(models),
        explorations=(
            ExploreRound(
                round=1,
                problems=120,
                solved=90,
                rollouts=1240,
                max_attempts=20,
                attempts=ATTEMPTS,
                outcomes={"correct": 90, "wrong": 1101, "no_answer": 49},
                lucky_checked=90,
                lucky=2,
            ),
        ),
        unsolved=tuple(
            UnsolvedProblem(
                problem_id=f"arithmetic/hard/{k}",
                statement="a4 b6 c8 | <b>" + HOSTILE,
                gold=str(k),
                domain="arithmetic",
                difficulty=12.0,
                attempts=20,
            )
            for k in range(29)
        ),
        overlaps=(
            BenchmarkOverlap(
                benchmark="arithmetic-hard",
                benchmark_problems=500,
                training_problems=1500,
                removed=3,
                left=0,
            ),
        ),
        curves=tuple(
            Curve(
                model=f"M_{index}",
                steps=tuple(range(1, 60)),
                loss=tuple(2.0 / (1 + step * 0.2) + 0.05 / index for step in range(1, 60)),
            )
            for index in (1, 2, 3)
        ),
        samples=choose_samples(models),
        notes=("2 malformed rows were quarantined.",),
    )


@pytest.fixture(scope="session")
def report() -> ReportData:
    """One report for all tests of this room."""
    return make_report()
