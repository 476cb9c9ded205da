"""Everything a report says, as frozen plain data.

evaluations, funnels, curves, ... -> ReportData -> report.md, report.html, report.json

Nothing here is volatile but `StageTime`: a second run over the same store gives the same bytes in
every other place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from still_core.errors import DataError, explain
from still_core.evaluate.answers import BenchmarkScore, DifficultyRate
from still_core.refine.funnel import Funnel, FunnelStep


def model_label(method: str, distill: int, explore: int) -> str:
    """A model's short unique name: method and numbers of demonstrations, e.g. `SFT 300+150`."""
    demonstrations = f"{distill}+{explore}" if explore else str(distill)
    return f"{method} {demonstrations}" if distill or explore else method


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """One row of STILL-2's Table 2."""

    method: str
    """`Backbone`, `SFT`, `SFT & DPO`, ..."""
    distill: int
    """Distilled demonstrations in its training set; 0 for the backbone."""
    explore: int
    """Explored demonstrations in its training set."""
    thought_tokens: float
    """Mean over all answers of all benchmarks; an answer without a thought counts 0."""
    truncated_rate: float
    """Share of answers cut by the token limit, in [0, 1]."""
    benchmarks: dict[str, BenchmarkScore]
    levels: dict[str, BenchmarkScore]
    """Pooled over the benchmarks of one level; every problem weighs the same."""
    gain: dict[str, float | None]
    """Percent of the backbone's accuracy, by benchmark; None where the backbone solves nothing."""
    p_vs_previous: dict[str, float]
    """Exact paired test against the row before, by benchmark; empty in the first row."""
    p_levels: dict[str, float]
    """The same test pooled over the benchmarks of one level."""
    round: int = 0
    """Explore rounds that its training set has the finds of; 0 for the backbone, M_1, and whatever
    stands beside the rounds of the run."""
    lucky_checked: int = 0
    """Correct answers whose thought was checked step by step; 0 where nothing can tell."""
    lucky: int = 0
    """Of those, with a wrong thought: a right answer by chance."""

    @property
    def label(self) -> str:
        """The row's name in plots and lists, see `model_label`."""
        return model_label(self.method, self.distill, self.explore)


@dataclass(frozen=True, kw_only=True, slots=True)
class FunnelTable:
    """The steps that made one data set."""

    name: str
    """The data set: `D_0`, `D_1`, ..."""
    steps: tuple[FunnelStep, ...]

    def __post_init__(self) -> None:
        for step in self.steps:
            if step.num_in != step.num_kept + sum(step.dropped.values()):
                raise DataError(
                    explain(
                        f"the funnel step {step.name!r} of {self.name} loses rows",
                        got=(step.num_in, step.num_kept, step.dropped),
                        expected="in = kept + dropped",
                    )
                )

    @classmethod
    def of(cls, name: str, funnel: Funnel) -> FunnelTable:
        """The table of a data set's funnel."""
        return cls(name=name, steps=tuple(funnel.steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRate:
    """One attempt index over all problems."""

    attempt: int
    """1-based."""
    tried: int
    """Problems not solved before this attempt that had one."""
    solved: int
    """Of those, solved at this attempt."""
    rate: float
    """solved / tried, in [0, 1]; falls with the attempt, as the easy problems leave first."""
    cumulative: float
    """Share of all problems solved by now, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExploreRound:
    """What one explore round did."""

    round: int
    """1-based."""
    problems: int
    solved: int
    rollouts: int
    max_attempts: int
    attempts: tuple[AttemptRate, ...]
    outcomes: dict[str, int] = field(default_factory=dict)
    """Rollouts by outcome."""
    lucky_checked: int = 0
    """Correct rollouts whose thought was checked step by step; 0 where nothing can tell."""
    lucky: int = 0
    """Of those, with a wrong thought: a right answer by chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnsolvedProblem:
    """A problem that no attempt solved."""

    problem_id: str
    statement: str
    gold: str
    domain: str
    difficulty: float | None
    attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOverlap:
    """Decontamination against one benchmark."""

    benchmark: str
    benchmark_problems: int
    training_problems: int
    """Before removal."""
    removed: int
    """Training problems that are the benchmark's and were dropped."""
    left: int
    """Those that stayed in training: `drop` was off, a threshold or a waiver let them pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """How long a stage took; the one volatile part of a report."""

    name: str
    seconds: float
    cached: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One training run: equally long tuples."""

    model: str
    steps: tuple[int, ...]
    loss: tuple[float | None, ...]
    """Mean cross-entropy of response tokens, nats; None where it was not finite (it diverged)."""
    learning_rate: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.loss) or len(self.learning_rate) not in (0, len(self.steps)):
            raise DataError(explain(f"the training curve of {self.model!r} is ragged"))

    @classmethod
    def from_metrics(cls, model: str, rows: Iterable[Mapping[str, Any]]) -> Curve:
        """From the rows of a `metrics.jsonl`; those without a loss are passed over.

        A loss of null was not finite.
        """
        logged = [row for row in rows if "loss" in row and "step" in row]
        with_rate = bool(logged) and all("learning_rate" in row for row in logged)
        return cls(
            model=model,
            steps=tuple(int(row["step"]) for row in logged),
            loss=tuple(_finite(row["loss"]) for row in logged),
            learning_rate=(
                tuple(float(row["learning_rate"]) for row in logged) if with_rate else ()
            ),
        )


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRollout:
    """One real answer to read."""

    method: str
    benchmark: str
    problem_id: str
    statement: str
    gold: str
    text: str
    extracted: str | None
    outcome: str
    truncated: bool
    thought_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of the paper, held against this run."""

    text: str
    shown: bool | None
    """None where this run measured nothing that could show it."""
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """A whole report."""

    run: str
    recipe_name: str
    recipe: dict[str, Any]
    """The resolved recipe, plain JSON."""
    rows: tuple[ModelRow, ...]
    """The backbone first, then in the order of training."""
    stages: tuple[StageTime, ...] = ()
    funnels: tuple[FunnelTable, ...] = ()
    difficulty_rates: tuple[DifficultyRate, ...] = ()
    explorations: tuple[ExploreRound, ...] = ()
    unsolved: tuple[UnsolvedProblem, ...] = ()
    overlaps: tuple[BenchmarkOverlap, ...] = ()
    curves: tuple[Curve, ...] = ()
    samples: tuple[SampleRollout, ...] = ()
    claims: tuple[Claim, ...] = ()
    """Filled by `write_report` from `paper_claims` where empty."""
    notes: tuple[str, ...] = ()
    """What a reader should know: quarantined rows, choices the paper leaves open, ..."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(explain("a report needs at least the backbone's row"))

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object, the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReportData:
        """Read what `to_json` gave.

        Raises:
            DataError: a key is missing or of the wrong type.
        """
        try:
            return _adapter().validate_python(dict(value))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(explain(f"not a report: {place}: {first['msg']}")) from error


@cache
def _adapter() -> TypeAdapter[ReportData]:
    return TypeAdapter(ReportData)
