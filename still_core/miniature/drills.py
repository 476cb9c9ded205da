"""What the backbone learns: the blocks of slow thinking in other clothes, and fast answers.

    a527 b+40 c-3 d+6 read c b      -> c-3 b+40          look up labelled terms
    a527 b+40 c-3 d+6 after c d     -> d+6 end           find what comes next, and the end
    a527 b+40 c-3 d+6 go c564       -> c564 d+6=570      one step from a given state
    a527 b+40 c-3 d+6 list?         -> a527, b+40, ...   walk through all terms
    527+40 312-8 sum?               -> 527+40=567 312-8=304
    527+40-3 run?                   -> 527+40=567-3=564  keep a state
    a527 b+40 total?                -> \\boxed{567}       short problems, answered at once

No drill shows a thought, and none answers a long problem: a base model that answers fast.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from still_core.miniature.problems import (
    LABELS,
    Arithmetic,
    Split,
    arithmetic,
    code,
    puzzle,
)

LONGEST = 13
"""Terms in the longest statement that a drill shows."""

SHORT = {"arithmetic": 3, "puzzle": 1, "code": 2}
"""Longest problem that the backbone is taught to answer at once."""


def _arithmetic(rng: random.Random) -> Arithmetic:
    return arithmetic(rng, rng.randint(2, LONGEST))


def _queries(rng: random.Random, size: int) -> list[int]:
    return [rng.randrange(size) for _ in range(rng.randint(2, 6))]


def _terms(question: Arithmetic) -> list[str]:
    return question.terms_text().split(" ")


def read_terms(rng: random.Random) -> tuple[str, str]:
    """Look up labelled terms."""
    terms = _terms(_arithmetic(rng))
    asked = _queries(rng, len(terms))
    prompt = f"{' '.join(terms)} read {' '.join(LABELS[i] for i in asked)}"
    return prompt, " ".join(terms[i] for i in asked)


def next_terms(rng: random.Random) -> tuple[str, str]:
    """Name the term after a labelled one; after the last comes the end."""
    terms = _terms(_arithmetic(rng))
    asked = _queries(rng, len(terms))
    if rng.random() < 0.5:
        asked[rng.randrange(len(asked))] = len(terms) - 1
    prompt = f"{' '.join(terms)} after {' '.join(LABELS[i] for i in asked)}"
    return prompt, " ".join([*terms, "end"][i + 1] for i in asked)


def one_step(rng: random.Random) -> tuple[str, str]:
    """One step from a given state, several times over; after the last term comes the end."""
    question = _arithmetic(rng)
    terms = _terms(question)
    asked = _queries(rng, len(terms))
    states, answers = [], []
    for i in asked:
        change = question.terms[i] if i < len(question.terms) else 0
        state = rng.randint(max(100, 100 - change), min(999, 999 - change))
        states.append(f"{LABELS[i]}{state}")
        step = f"{terms[i + 1]}={state + change}" if i < len(question.terms) else "end"
        answers.append(f"{states[-1]} {step}")
    return f"{' '.join(terms)} go {' '.join(states)}", " ".join(answers)


def list_terms(rng: random.Random) -> tuple[str, str]:
    """Walk through all terms."""
    terms = _terms(_arithmetic(rng))
    return f"{' '.join(terms)} list?", ", ".join(terms)


def sums(rng: random.Random) -> tuple[str, str]:
    """Single sums, without labels."""
    pairs = [arithmetic(rng, 2) for _ in range(rng.randint(3, 8))]
    prompt = " ".join(f"{q.start}{q.terms[0]:+d}" for q in pairs)
    return f"{prompt} sum?", " ".join(f"{q.start}{q.terms[0]:+d}={q.answer()}" for q in pairs)


def run(rng: random.Random) -> tuple[str, str]:
    """Running totals, without labels."""
    question = _arithmetic(rng)
    prompt = f"{question.start}{''.join(f'{term:+d}' for term in question.terms)} run?"
    changes = zip(question.terms, question.totals()[1:], strict=True)
    return prompt, str(question.start) + "".join(f"{term:+d}={total}" for term, total in changes)


def follow(rng: random.Random) -> tuple[str, str]:
    """Look up arrows."""
    question = puzzle(rng, 1)
    asked = _queries(rng, len(question.arrows))
    prompt = f"{question.arrows_text()} read {' '.join(LABELS[i] for i in asked)}"
    return prompt, " ".join(f"{LABELS[i]}>{question.arrows[i]}" for i in asked)


def trail(rng: random.Random) -> tuple[str, str]:
    """Follow arrows from a node, a given number of times."""
    question = puzzle(rng, rng.randint(2, 8))
    prompt = f"{question.arrows_text()} {question.start} {question.hops} trail"
    return prompt, " ".join(question.trail())


def hop_step(rng: random.Random) -> tuple[str, str]:
    """One counted hop from a given state; after the last comes the end."""
    question = puzzle(rng, rng.randint(2, 8))
    states, answers = [], []
    for _ in range(rng.randint(2, 4)):
        count = rng.choice((question.hops, rng.randint(1, question.hops)))
        at = rng.choice(LABELS[: len(question.arrows)])
        states.append(f"{count}{at}")
        goal = question.arrows[LABELS.index(at)]
        step = "end" if count == question.hops else f"{count + 1}{goal}"
        answers.append(f"{states[-1]} {step}")
    prompt = f"{question.arrows_text()} {question.start} {question.hops} go {' '.join(states)}"
    return prompt, " ".join(answers)


def assignments(rng: random.Random) -> tuple[str, str]:
    """Look up operations and write them as Python assignments; after the last comes the end."""
    question = code(rng, rng.randint(2, 8))
    asked = _queries(rng, len(question.operations))
    if rng.random() < 0.5:
        asked[rng.randrange(len(asked))] = len(question.operations) - 1
    lines = [*question.steps(), "end"]
    if rng.random() < 0.5:
        prompt = f"{question.operations_text()} read {' '.join(LABELS[i] for i in asked)}"
        return prompt, " ".join(lines[i] for i in asked)
    prompt = f"{question.operations_text()} after {' '.join(LABELS[i] for i in asked)}"
    return prompt, " ".join(lines[i + 1] for i in asked)


def program(rng: random.Random) -> tuple[str, str]:
    """Assignments put together to a function."""
    question = code(rng, rng.randint(1, 8))
    return f"{', '.join(question.assignments())} line?", question.answer()


def fast_answer(rng: random.Random) -> tuple[str, str]:
    """A short problem, answered at once in the box."""
    make = rng.choice((arithmetic, arithmetic, puzzle, code))
    shortest = 2 if make is arithmetic else 1
    while True:
        question = make(rng, rng.randint(shortest, SHORT[make.__name__]))
        if Split.TRAIN.holds(question.statement()):
            return question.statement(), f"\\boxed{{{question.answer()}}}"


Drill = Callable[[random.Random], tuple[str, str]]

DRILLS: tuple[tuple[Drill, float], ...] = (
    (fast_answer, 0.13),
    (one_step, 0.26),
    (next_terms, 0.08),
    (read_terms, 0.05),
    (list_terms, 0.06),
    (sums, 0.10),
    (run, 0.08),
    (follow, 0.05),
    (trail, 0.05),
    (hop_step, 0.05),
    (assignments, 0.06),
    (program, 0.03),
)
"""Each drill with its share."""


def draw(rng: random.Random) -> tuple[str, str]:
    """One drill: (user's text, answer)."""
    drill = rng.choices([d for d, _ in DRILLS], weights=[share for _, share in DRILLS])[0]
    return drill(rng)
