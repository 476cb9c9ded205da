"""Scripted teachers: right thoughts in two habits, with the faults that real teachers have.

    problems -> distil(teacher, faults, seed) -> RawResponse rows, as if read from a teacher's file

`separate` writes `<think>` thought `</think>` and a solution, as R1 does; `stream` writes one long
thought that ends in the answer, as QwQ does, and leaves the solution to be completed (STILL-2,
section 2.2.1).
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from still_core.errors import ConfigError, explain
from still_core.miniature.problems import Arithmetic, Code, Puzzle, Question, parse
from still_core.miniature.recipe import FaultRates
from still_core.miniature.tokenizer import FOREIGN
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse

RESTATED = 0.25
"""Share of `separate` thoughts that end by stating the answer, as R1's do. A model that never saw
one can not complete the solution of a `stream` thought."""


class Habit(StrEnum):
    """A teacher's habit."""

    SEPARATE = "separate"
    STREAM = "stream"


class Fault(StrEnum):
    """What is wrong with a response; the names of `FaultRates`' fields."""

    WRONG = "wrong"
    LOOP = "loop"
    MIXED_SCRIPT = "mixed_script"
    GIBBERISH = "gibberish"
    TRUNCATED = "truncated"
    MISSING_TOKEN = "missing_token"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scripted:
    """A raw response and the fault planted in it: what a cleaning rule is tested against."""

    raw: RawResponse
    fault: Fault | None


def distil(
    problems: Sequence[Problem],
    teacher: str = Habit.SEPARATE,
    *,
    faults: FaultRates | None = None,
    seed: int = 0,
) -> list[RawResponse]:
    """What the teacher writes for the problems: one row each, and a few duplicates.

    Raises:
        ConfigError: an unknown teacher, or a statement that is not the miniature's.
    """
    return [scripted.raw for scripted in script(problems, teacher, faults=faults, seed=seed)]


def script(
    problems: Sequence[Problem],
    teacher: str = Habit.SEPARATE,
    *,
    faults: FaultRates | None = None,
    seed: int = 0,
) -> list[Scripted]:
    """`distil` with the planted faults named. A pure function of its arguments."""
    habit = _habit(teacher)
    rates = (faults or FaultRates()).model_dump()
    rows: list[Scripted] = []
    for problem in problems:
        # One stream of chance per problem: its response does not depend on its neighbours.
        rng = random.Random(f"{habit}/{seed}/{problem.id}/{problem.statement}")
        fault = _draw_fault(rng, rates)
        if fault in (Fault.EXACT_DUPLICATE, Fault.NEAR_DUPLICATE):
            text = _write(problem, habit, None, rng)
            again = text if fault is Fault.EXACT_DUPLICATE else _reword(text)
            rows += [_row(problem, habit, text, None, len(rows), seed)]
            rows += [_row(problem, habit, again, fault, len(rows), seed)]
        else:
            text = _write(problem, habit, fault, rng)
            rows += [_row(problem, habit, text, fault, len(rows), seed)]
    return rows


def _habit(name: str) -> Habit:
    try:
        return Habit(name)
    except ValueError:
        expected = ", ".join(Habit)
        raise ConfigError(
            explain("unknown scripted teacher", got=name, expected=expected)
        ) from None


def _draw_fault(rng: random.Random, rates: dict[str, float]) -> Fault | None:
    point = rng.random()
    for fault in Fault:
        point -= rates[fault]
        if point < 0:
            return fault
    return None


def _row(
    problem: Problem, habit: Habit, text: str, fault: Fault | None, row: int, seed: int
) -> Scripted:
    source = f"miniature-teacher-{habit}-{seed}"
    raw = RawResponse(
        id=f"{source}/{row}",
        problem=problem,
        text=text,
        teacher=f"miniature-{habit}",
        source_file=source,
        row=row,
    )
    return Scripted(raw=raw, fault=fault)


def _write(problem: Problem, habit: Habit, fault: Fault | None, rng: random.Random) -> str:
    question = parse(problem.statement)
    if fault is Fault.WRONG:
        question = _slip(question, rng)
    steps, answer = question.steps(), question.answer()
    if fault is Fault.LOOP:
        at = rng.randrange(len(steps))
        steps[at : at + 1] = [steps[at]] * rng.randint(14, 20)
    elif fault is Fault.MIXED_SCRIPT:
        for at in rng.sample(range(len(steps)), max(1, len(steps) // 2)):
            chinese = "".join(rng.sample(FOREIGN, 4))
            steps[at] = f"and therefore {chinese} we have {steps[at]}"
    elif fault is Fault.GIBBERISH:
        letters = string.ascii_lowercase
        words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(40)]
        steps.insert(rng.randrange(len(steps)), " ".join(words))
    thought, boxed = "\n\n".join(steps), f"\\boxed{{{answer}}}"
    if fault is Fault.TRUNCATED:
        cut = thought[: rng.randint(len(thought) // 4, 3 * len(thought) // 4)]
        return f"<think>\n{cut}" if habit is Habit.SEPARATE else cut
    if habit is Habit.STREAM:
        return thought if fault is Fault.MISSING_TOKEN else f"{thought}\n\n{boxed}"
    if rng.random() < RESTATED:
        thought = f"{thought}\n\n{boxed}"
    close = "" if fault is Fault.MISSING_TOKEN else "\n</think>"
    return f"<think>\n{thought}{close}\n\n{boxed}"


def _reword(text: str) -> str:
    """The same response with one mark more."""
    return text + "."


def _slip(question: Question, rng: random.Random) -> Question:
    """The question as a careless reader sees it: another answer, written out without doubt."""
    while True:
        slipped = _misread(question, rng)
        if slipped.answer() != question.answer():
            return slipped


def _misread(question: Question, rng: random.Random) -> Question:
    if isinstance(question, Arithmetic):
        return replace(question, start=rng.randint(100, 999))
    if isinstance(question, Puzzle):
        return replace(question, start=rng.choice(question.arrows))
    operations = list(question.operations)
    at = rng.randrange(len(operations))
    operations[at] = (operations[at][0], rng.randint(1, 9))
    return Code(operations=tuple(operations))
