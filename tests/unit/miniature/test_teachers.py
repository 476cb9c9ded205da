"""The scripted teachers: two habits, every fault, and thoughts whose soundness can be told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from still_core.errors import ConfigError
from still_core.miniature.problems import generate
from still_core.miniature.recipe import FaultRates
from still_core.miniature.soundness import soundness, thought_is_sound
from still_core.miniature.teachers import Fault, Habit, distil, script
from still_core.responses.response import Response
from still_core.responses.unify import unify

NO_FAULTS = FaultRates(**dict.fromkeys(FaultRates.model_fields, 0.0))


def test_faults_come_at_their_rates() -> None:
    problems = generate("arithmetic", "normal", 4000, seed=1)
    counts = Counter(one.fault for one in script(problems, seed=2))
    for name, rate in FaultRates().model_dump().items():
        assert counts[Fault(name)] == pytest.approx(4000 * rate, abs=4 * (4000 * rate) ** 0.5)


def test_a_faultless_separate_teacher_is_whole_and_sound() -> None:
    problems = [
        p for d in ("arithmetic", "puzzle", "code") for p in generate(d, "hard", 50, seed=1)
    ]
    for raw in distil(problems, "separate", faults=NO_FAULTS):
        unified = unify(raw)
        assert unified.response is not None
        assert thought_is_sound(raw.problem, unified.response)
        assert soundness(raw.problem, unified.response)


def test_a_faultless_stream_teacher_leaves_the_solution_to_be_completed() -> None:
    problems = generate("arithmetic", "normal", 50, seed=1)
    for raw in distil(problems, "stream", faults=NO_FAULTS):
        unified = unify(raw)
        assert unified.needs_solution
        assert unified.thought.endswith(f"\\boxed{{{raw.problem.gold}}}")
        completed = Response(thought=unified.thought, solution=f"\\boxed{{{raw.problem.gold}}}")
        assert thought_is_sound(raw.problem, completed)


@pytest.mark.parametrize("fault", [Fault.WRONG, Fault.LOOP, Fault.GIBBERISH, Fault.MIXED_SCRIPT])
def test_a_faulty_thought_is_not_what_the_teacher_would_write(fault: Fault) -> None:
    rates = NO_FAULTS.model_copy(update={str(fault): 1.0})
    problems = generate("arithmetic", "normal", 30, seed=1)
    clean = {raw.problem.id: raw.text for raw in distil(problems, faults=NO_FAULTS)}
    for raw in distil(problems, faults=rates):
        assert raw.text != clean[raw.problem.id]
        response = unify(raw).response
        assert response is not None
        assert not thought_is_sound(raw.problem, response)


@pytest.mark.parametrize("teacher", list(Habit))
@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.MISSING_TOKEN])
def test_cut_responses_are_seen_as_cut(teacher: Habit, fault: Fault) -> None:
    rates = NO_FAULTS.model_copy(update={str(fault): 1.0})
    for raw in distil(generate("puzzle", "hard", 30, seed=1), teacher, faults=rates):
        assert unify(raw).defect is not None


def test_a_response_does_not_depend_on_its_neighbours() -> None:
    problems = generate("code", "normal", 20, seed=1)
    texts = {raw.problem.id: raw.text for raw in distil(problems, seed=4)}
    for raw in distil(problems[::-2], seed=4):
        assert raw.text.rstrip(".") in texts[raw.problem.id]


def test_a_wrong_thought_with_a_right_answer_is_a_lucky_guess() -> None:
    problem = generate("arithmetic", "normal", 1, seed=1)[0]
    steps = problem.solution.split("\n\n")
    skipped = Response(
        thought="\n\n".join(steps[:1] + steps[2:]), solution=f"\\boxed{{{problem.gold}}}"
    )
    assert not thought_is_sound(problem, skipped)
    assert soundness(problem, skipped) is False
    assert soundness(replace(problem, statement="What is 1+1?"), skipped) is None


def test_an_unknown_teacher_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="unknown scripted teacher"):
        distil([], "oracle")
