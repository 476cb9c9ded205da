"""Evaluated answers, and what they add up to: scores by benchmark, by level and by difficulty.

problem + rollout -> EvaluatedAnswer -> BenchmarkScore, DifficultyRate. The answers of one model are
a table in the store; everything the report says about accuracy derives from such tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

from still_core.errors import DataError, explain
from still_core.evaluate.intervals import wilson
from still_core.problems.problem import Problem
from still_core.responses.prompts import Prompt
from still_core.rollout.rollout import Rollout
from still_core.verify.verdict import Outcome


def thought_length(text: str, asked: Prompt, encode: Callable[[str], Sized]) -> int:
    """Tokens of the thought in a response; 0 where there is none.

    A thought cut by the token limit counts with what it has. Unlike the strict parser this reads
    broken responses too: length is measured on all of them.

    Args:
        text: the completion; the begin marker may be missing where the chat template ends with it.
        asked: the prompt, which says by which marks the thought is told.
        encode: text -> token ids, e.g. `lambda t: tokenizer.encode(t, add_special_tokens=False)`.
    """
    begin, end, _, _ = asked.markup.marks()
    head, marker, tail = f"{asked.opening()}{text}".partition(begin)
    if marker:
        thought = tail.partition(end)[0]
    elif end in head:
        thought = head.partition(end)[0]
    else:
        return 0
    return len(encode(thought.strip()))


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedAnswer:
    """One model's judged answer to one benchmark problem."""

    benchmark: str
    level: str
    """Of the benchmark: `normal`, `hard` or `other`."""
    problem_id: str
    domain: str
    difficulty: float | None
    """`Problem.level`."""
    sample_index: int
    outcome: str
    """`still_core.verify.verdict.Outcome`."""
    extracted: str | None
    truncated: bool
    thought_tokens: int
    """0 where the answer has no thought."""
    statement: str = ""
    gold: str = ""
    text: str = ""
    thought_valid: bool | None = None
    """Whether every step of the thought holds, where something can tell (the miniature can)."""

    @property
    def correct(self) -> bool:
        """Judged correct."""
        return self.outcome == Outcome.CORRECT

    @classmethod
    def of(
        cls,
        problem: Problem,
        rollout: Rollout,
        *,
        benchmark: str,
        level: str,
        thought_tokens: int,
        thought_valid: bool | None = None,
    ) -> EvaluatedAnswer:
        """The answer that a verified rollout gives to its problem.

        A rollout from the bank may have been drawn for the same problem under another id.

        Raises:
            DataError: the rollout belongs to another problem or was never verified.
        """
        if rollout.problem_digest != problem.digest or not rollout.outcome:
            raise DataError(
                explain(
                    "an evaluated answer needs a verified rollout of its problem",
                    got=(rollout.problem_id, rollout.problem_digest[:16], rollout.outcome),
                    expected=(problem.id, problem.digest[:16]),
                )
            )
        return cls(
            benchmark=benchmark,
            level=level,
            problem_id=problem.id,
            domain=problem.domain,
            difficulty=problem.level,
            sample_index=rollout.sample_index,
            outcome=rollout.outcome,
            extracted=rollout.extracted,
            truncated=rollout.finish_reason.is_truncated(),
            thought_tokens=thought_tokens,
            statement=problem.statement,
            gold=problem.gold,
            text=rollout.text,
            thought_valid=thought_valid,
        )

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {**asdict(self), "outcome": str(self.outcome)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> EvaluatedAnswer:
        """The inverse of `to_row`; columns it does not know are ignored."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        for name in ("difficulty", "thought_valid"):
            value = known.get(name)
            known[name] = None if value is None or value != value else value
        known["truncated"] = bool(known["truncated"])
        if known["thought_valid"] is not None:
            known["thought_valid"] = bool(known["thought_valid"])
        for name in ("sample_index", "thought_tokens"):
            known[name] = int(known[name])
        return cls(**known)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScore:
    """One model on one benchmark, or on all benchmarks of one level."""

    accuracy: float
    """Mean over problems of the share of correct samples, in [0, 1] (mean@n)."""
    low: float
    high: float
    """95 % Wilson interval."""
    n: int
    """Problems."""
    level: str
    num_samples: int
    """Answers in all; n times the samples a problem."""
    thought_tokens: float
    """Mean over answers, one without a thought counting 0."""
    truncated_rate: float
    """Share of answers cut by the token limit, in [0, 1]."""
    outcomes: dict[str, int]
    """Answers by outcome, so that a time-out never looks like a wrong answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DifficultyRate:
    """One model on the problems of one domain and one difficulty."""

    method: str
    domain: str
    difficulty: float
    accuracy: float
    low: float
    high: float
    n: int
    thought_tokens: float


def scores_by_problem(answers: Iterable[EvaluatedAnswer]) -> dict[str, float]:
    """`benchmark/problem id` -> share of correct samples in [0, 1], as `paired_test` takes it."""
    results: dict[str, list[bool]] = {}
    for answer in answers:
        results.setdefault(f"{answer.benchmark}/{answer.problem_id}", []).append(answer.correct)
    return {problem: sum(each) / len(each) for problem, each in results.items()}


def score(answers: Sequence[EvaluatedAnswer]) -> BenchmarkScore:
    """The score over all answers given; problems weigh equally, whatever their benchmark.

    Raises:
        DataError: no answers.
    """
    by_problem = scores_by_problem(answers)
    interval = wilson(min(sum(by_problem.values()), len(by_problem)), len(by_problem))
    return BenchmarkScore(
        accuracy=interval.accuracy,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        level=answers[0].level,
        num_samples=len(answers),
        thought_tokens=sum(answer.thought_tokens for answer in answers) / len(answers),
        truncated_rate=sum(answer.truncated for answer in answers) / len(answers),
        outcomes=dict(sorted(Counter(str(answer.outcome) for answer in answers).items())),
    )


def score_benchmarks(answers: Iterable[EvaluatedAnswer]) -> dict[str, BenchmarkScore]:
    """Score by benchmark, in order of first appearance."""
    groups = group_by(answers, lambda answer: answer.benchmark)
    return {name: score(group) for name, group in groups.items()}


def group_by(
    answers: Iterable[EvaluatedAnswer], key: Callable[[EvaluatedAnswer], str]
) -> dict[str, list[EvaluatedAnswer]]:
    """Answers by key, in order of first appearance."""
    groups: dict[str, list[EvaluatedAnswer]] = {}
    for answer in answers:
        groups.setdefault(key(answer), []).append(answer)
    return groups


def rates_by_difficulty(
    method: str, answers: Iterable[EvaluatedAnswer]
) -> tuple[DifficultyRate, ...]:
    """One rate per domain and difficulty, sorted; problems of unknown difficulty are left out."""
    groups: dict[tuple[str, float], list[EvaluatedAnswer]] = {}
    for answer in answers:
        if answer.difficulty is not None:
            groups.setdefault((answer.domain, answer.difficulty), []).append(answer)
    rates = []
    for (domain, difficulty), group in sorted(groups.items()):
        total = score(group)
        rates.append(
            DifficultyRate(
                method=method,
                domain=domain,
                difficulty=difficulty,
                accuracy=total.accuracy,
                low=total.low,
                high=total.high,
                n=total.n,
                thought_tokens=total.thought_tokens,
            )
        )
    return tuple(rates)


def relative_gain(accuracy: float, backbone: float) -> float | None:
    """Gain over the backbone in percent of the backbone's accuracy (STILL-2, Table 2).

    None where the backbone solves nothing and no ratio exists.
    """
    return None if backbone == 0 else 100.0 * (accuracy - backbone) / backbone
