"""The miniature's problems: three domains, two levels, gold answers by construction.

    arithmetic  a527 b+40 c-3 total?                       math    564
    puzzle      a>d b>a c>b d>c b 3 hops?                  choice  C
    code        a add 7 b mul 2 code?                      code    tests of f(x)

Every term has a label, so that a step can name what it works on; a problem's length (terms, hops,
operations) is its difficulty. A statement belongs to one split for ever, by its digest: a set drawn
for evaluation can not share a statement with anything drawn for training, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from still_core.errors import ConfigError, explain
from still_core.problems.problem import AnswerKind, Bucket, Problem

LABELS = "abcdefghijklmnop"


class Split(StrEnum):
    """Which statements a set may draw from: digests modulo 10, so the three never meet."""

    TRAIN = "train"
    DEV = "dev"
    HELD_OUT = "held-out"

    def holds(self, statement: str) -> bool:
        """Whether the statement belongs to this split."""
        place = int(hashlib.sha256(statement.encode()).hexdigest()[:8], 16) % 10
        return {Split.TRAIN: place >= 4, Split.DEV: place in (2, 3), Split.HELD_OUT: place < 2}[
            self
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """A start value and signed terms, `total` after each: all totals stay in 100..999."""

    start: int
    terms: tuple[int, ...]

    def statement(self) -> str:
        """The question as the model sees it."""
        return f"{self.terms_text()} total?"

    def terms_text(self) -> str:
        """The labelled terms alone."""
        parts = [f"a{self.start}"]
        parts += [f"{LABELS[i + 1]}{term:+d}" for i, term in enumerate(self.terms)]
        return " ".join(parts)

    def totals(self) -> list[int]:
        """The start value and the total after each term."""
        totals = [self.start]
        for term in self.terms:
            totals.append(totals[-1] + term)
        return totals

    def steps(self) -> list[str]:
        """The right thought, step by step."""
        totals = self.totals()
        lines = [f"a={self.start}"]
        lines += [f"{LABELS[i + 1]}{t:+d}={totals[i + 1]}" for i, t in enumerate(self.terms)]
        return lines

    def answer(self) -> str:
        """What belongs in the box."""
        return str(self.totals()[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Puzzle:
    """A ring of arrows: follow `hops` of them and name where you are; the nodes are the choices."""

    arrows: tuple[str, ...]  # [num_nodes], where node i points
    start: str
    hops: int

    def statement(self) -> str:
        """The question as the model sees it."""
        return f"{self.arrows_text()} {self.start} {self.hops} hops?"

    def arrows_text(self) -> str:
        """The arrows alone."""
        return " ".join(f"{LABELS[i]}>{node}" for i, node in enumerate(self.arrows))

    def trail(self) -> list[str]:
        """The start and every node after it."""
        trail = [self.start]
        for _ in range(self.hops):
            trail.append(self.arrows[LABELS.index(trail[-1])])
        return trail

    def steps(self) -> list[str]:
        """The right thought: one arrow a step."""
        trail = self.trail()
        return [f"{here}>{there}" for here, there in pairwise(trail)]

    def answer(self) -> str:
        """What belongs in the box."""
        return self.trail()[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Operations in words; the answer is a Python function that applies them in order."""

    operations: tuple[tuple[str, int], ...]

    def statement(self) -> str:
        """The question as the model sees it."""
        return f"{self.operations_text()} code?"

    def operations_text(self) -> str:
        """The labelled operations alone."""
        return " ".join(f"{LABELS[i]} {verb} {n}" for i, (verb, n) in enumerate(self.operations))

    def assignments(self) -> list[str]:
        """Each operation as a Python assignment."""
        return [f"x=x{_SIGNS[verb]}{n}" for verb, n in self.operations]

    def steps(self) -> list[str]:
        """The right thought, step by step."""
        return [f"{LABELS[i]} {line}" for i, line in enumerate(self.assignments())]

    def answer(self) -> str:
        """What belongs in the box."""
        return f"def f(x): {'; '.join(self.assignments())}; return x"

    def gold(self) -> str:
        """The tests as JSON, in the form of `still_core.problems.sources.code`."""
        tests = [f"assert f({x}) == {self.apply(x)}" for x in (0, 3, 11)]
        return json.dumps({"language": "python", "prelude": "", "entry_point": "f", "tests": tests})

    def apply(self, x: int) -> int:
        """What the right function returns."""
        for verb, n in self.operations:
            x = {"add": x + n, "sub": x - n, "mul": x * n}[verb]
        return x


_SIGNS = {"add": "+", "sub": "-", "mul": "*"}
Question = Arithmetic | Puzzle | Code


def arithmetic(rng: random.Random, terms: int) -> Arithmetic:
    """A chain of `terms` values (the start counted), totals in 100..999."""
    start = rng.randint(100, 999)
    total = start
    changes: list[int] = []
    while len(changes) < terms - 1:
        change = rng.choice((-1, 1)) * rng.randint(1, 9) * rng.choice((1, 10, 100))
        if 100 <= total + change <= 999:
            total += change
            changes.append(change)
    return Arithmetic(start=start, terms=tuple(changes))


def puzzle(rng: random.Random, hops: int, nodes: int = 9) -> Puzzle:
    """One ring through all nodes, so that no trail of fewer than `nodes` hops meets itself."""
    ring = list(LABELS[:nodes])
    rng.shuffle(ring)
    follow = {node: ring[(i + 1) % nodes] for i, node in enumerate(ring)}
    start = rng.choice(ring)
    return Puzzle(
        arrows=tuple(follow[n] for n in LABELS[:nodes]),
        start=start,
        hops=hops,
    )


def code(rng: random.Random, operations: int) -> Code:
    """`operations` steps in words."""
    verbs = [(rng.choice(("add", "sub", "mul")), rng.randint(1, 9)) for _ in range(operations)]
    return Code(operations=tuple((verb, max(n, 2) if verb == "mul" else n) for verb, n in verbs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """How one domain makes problems."""

    make: Callable[[random.Random, int], Question]
    kind: AnswerKind
    lengths: dict[str, tuple[int, int]]
    """Shortest and longest problem per level, both inclusive, drawn evenly."""


DOMAINS: dict[str, Domain] = {
    "arithmetic": Domain(
        make=arithmetic, kind=AnswerKind.MATH, lengths={"normal": (4, 6), "hard": (9, 13)}
    ),
    "puzzle": Domain(
        make=puzzle, kind=AnswerKind.CHOICE, lengths={"normal": (2, 4), "hard": (5, 8)}
    ),
    "code": Domain(make=code, kind=AnswerKind.CODE, lengths={"normal": (3, 4), "hard": (5, 8)}),
}
"""The main domain first."""


def generate(
    domain: str,
    level: str,
    count: int,
    seed: int,
    exclude: Collection[str] = (),
    *,
    split: str = Split.TRAIN,
    lengths: tuple[int, int] | None = None,
) -> list[Problem]:
    """Distinct problems, a pure function of its arguments.

    Args:
        domain: `arithmetic`, `puzzle` or `code`.
        level: `normal` or `hard`; `hard@held-out` names the split as well, for places that have no
            other way to say it (source specs).
        count: how many, > 0.
        seed: any integer; the same seed gives the same problems, and a larger count extends them.
        exclude: statements that must not appear.
        split: `train`, `dev` or `held-out`; sets of different splits never share a statement.
        lengths: shortest and longest problem, in place of the level's own range.

    Raises:
        ConfigError: an unknown domain, level or split, or more problems than the range holds.
    """
    level, _, named = level.partition("@")
    split = named or split
    spec, kept_in = _spec(domain, level), _split(split)
    low, high = lengths or spec.lengths[level]
    rng = random.Random(f"{domain}/{level}/{split}/{seed}")
    seen, idle = set(exclude), 0
    found: list[Problem] = []
    while len(found) < count:
        question = spec.make(rng, rng.randint(low, high))
        statement = question.statement()
        if statement in seen or not kept_in.holds(statement):
            idle += 1
            if idle > 10_000:
                most = f"at most {len(found)} of {domain}/{level}"
                raise ConfigError(explain("no more distinct problems", got=count, expected=most))
            continue
        idle = 0
        seen.add(statement)
        found.append(_problem(question, domain, level, spec.kind, seed, split, len(found)))
    return found


def _problem(
    question: Question, domain: str, level: str, kind: AnswerKind, seed: int, split: str, row: int
) -> Problem:
    source = f"miniature-{domain}-{level}-{split}-{seed}"
    main = domain == "arithmetic"
    return Problem(
        id=f"{source}/{row}",
        statement=question.statement(),
        gold=_gold(question),
        kind=kind,
        domain="math" if main else domain,
        bucket=(Bucket.HARD_MATH if level == "hard" else Bucket.NORMAL_MATH)
        if main
        else Bucket.OTHER,
        source=source,
        row=row,
        level=float(length_of(question)),
        choices=tuple(LABELS[: len(question.arrows)]) if isinstance(question, Puzzle) else (),
        solution="\n\n".join(question.steps()),
    )


def _gold(question: Question) -> str:
    if isinstance(question, Code):
        return question.gold()
    # The letter of a choice: node `c` is choice C.
    return question.answer().upper() if isinstance(question, Puzzle) else question.answer()


def length_of(question: Question) -> int:
    """Terms, hops or operations: the difficulty."""
    if isinstance(question, Arithmetic):
        return len(question.terms) + 1
    return question.hops if isinstance(question, Puzzle) else len(question.operations)


def parse(statement: str) -> Question:
    """The question behind a statement: the inverse of `Question.statement`.

    Raises:
        ConfigError: the statement is not one of the miniature's.
    """
    words = statement.split()
    if statement.endswith(" total?"):
        values = [int(word[1:]) for word in words[:-1]]
        return Arithmetic(start=values[0], terms=tuple(values[1:]))
    if statement.endswith(" code?"):
        pairs = re.findall(r"[a-p] (add|sub|mul) (\d)", statement)
        return Code(operations=tuple((verb, int(n)) for verb, n in pairs))
    if statement.endswith(" hops?"):
        at = len(words) - 1
        return Puzzle(
            arrows=tuple(word[2:] for word in words[: at - 2]),
            start=words[at - 2],
            hops=int(words[at - 1]),
        )
    raise ConfigError(explain("not a problem of the miniature", got=statement))


def _spec(domain: str, level: str) -> Domain:
    if domain not in DOMAINS:
        raise ConfigError(
            explain("unknown miniature domain", got=domain, expected=", ".join(DOMAINS))
        )
    if level not in DOMAINS[domain].lengths:
        expected = ", ".join(DOMAINS[domain].lengths)
        raise ConfigError(explain("unknown miniature level", got=level, expected=expected))
    return DOMAINS[domain]


def _split(name: str) -> Split:
    try:
        return Split(name)
    except ValueError:
        expected = ", ".join(Split)
        raise ConfigError(explain("unknown miniature split", got=name, expected=expected)) from None
