"""From evaluated answers to the rows, rates and samples of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from still_core.evaluate.answers import (
    DifficultyRate,
    EvaluatedAnswer,
    group_by,
    rates_by_difficulty,
    relative_gain,
    score,
    score_benchmarks,
    scores_by_problem,
)
from still_core.evaluate.paired import paired_test
from still_core.identity import digest
from still_core.report.data import ModelRow, SampleRollout, model_label


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEvaluation:
    """One trained model and its answers to the benchmarks."""

    method: str
    distill: int
    explore: int
    round: int = 0
    """As in `ModelRow`."""
    answers: tuple[EvaluatedAnswer, ...]

    @property
    def label(self) -> str:
        """Method and counts; `model_labels` tells models with equal counts apart."""
        return model_label(self.method, self.distill, self.explore)


def build_rows(models: Sequence[ModelEvaluation]) -> tuple[ModelRow, ...]:
    """Rows in the order given; the first is the backbone that gains refer to."""
    rows: list[ModelRow] = []
    for index, model in enumerate(models):
        previous = models[index - 1] if index else None
        rows.append(_row(model, previous, rows[0] if rows else None))
    return tuple(rows)


def _row(
    model: ModelEvaluation, previous: ModelEvaluation | None, backbone: ModelRow | None
) -> ModelRow:
    total = score(model.answers)
    by_benchmark = group_by(model.answers, _benchmark)
    scores = score_benchmarks(model.answers)
    by_level = group_by(model.answers, _level)
    gain = {}
    if backbone is not None:
        gain = {
            name: relative_gain(each.accuracy, backbone.benchmarks[name].accuracy)
            for name, each in scores.items()
            if name in backbone.benchmarks
        }
    before = previous.answers if previous else ()
    checked = [
        answer for answer in model.answers if answer.correct and answer.thought_valid is not None
    ]
    return ModelRow(
        method=model.method,
        distill=model.distill,
        explore=model.explore,
        thought_tokens=total.thought_tokens,
        truncated_rate=total.truncated_rate,
        benchmarks=scores,
        levels={name: score(answers) for name, answers in by_level.items()},
        gain=gain,
        p_vs_previous=_p_values(group_by(before, _benchmark), by_benchmark),
        p_levels=_p_values(group_by(before, _level), by_level),
        round=model.round,
        lucky_checked=len(checked),
        lucky=sum(1 for answer in checked if not answer.thought_valid),
    )


def _benchmark(answer: EvaluatedAnswer) -> str:
    return answer.benchmark


def _level(answer: EvaluatedAnswer) -> str:
    return answer.level


def _p_values(
    before: dict[str, list[EvaluatedAnswer]], after: dict[str, list[EvaluatedAnswer]]
) -> dict[str, float]:
    return {
        name: paired_test(scores_by_problem(before[name]), scores_by_problem(answers)).p
        for name, answers in after.items()
        if name in before
    }


def model_labels(models: Sequence[ModelEvaluation]) -> list[str]:
    """Labels made unique: a round that found nothing has the counts of the row before."""
    seen: Counter[str] = Counter()
    labels = []
    for model in models:
        seen[model.label] += 1
        again = f" ({seen[model.label]})" if seen[model.label] > 1 else ""
        labels.append(model.label + again)
    return labels


def build_difficulty_rates(models: Sequence[ModelEvaluation]) -> tuple[DifficultyRate, ...]:
    """Pass rate and thought length of every model by domain and difficulty."""
    return tuple(
        rate
        for label, model in zip(model_labels(models), models, strict=True)
        for rate in rates_by_difficulty(label, model.answers)
    )


def choose_samples(
    models: Sequence[ModelEvaluation], *, right: int = 8, wrong: int = 8, truncated: int = 4
) -> tuple[SampleRollout, ...]:
    """Real answers to read: right, wrong and truncated, spread over models and benchmarks.

    The choice is blind (by digest of the problem), so that nobody picks the pretty ones, and the
    same answers always give the same samples. The backbone gives samples too.
    """
    pools: dict[str, list[tuple[str, EvaluatedAnswer]]] = {"right": [], "wrong": [], "cut": []}
    for label, model in zip(model_labels(models), models, strict=True):
        for answer in model.answers:
            kind = "right" if answer.correct else "cut" if answer.truncated else "wrong"
            pools[kind].append((label, answer))
    wanted = {"right": right, "wrong": wrong, "cut": truncated}
    return tuple(
        _sample(method, answer)
        for kind, pool in pools.items()
        for method, answer in _spread(pool, wanted[kind])
    )


def _spread(
    pool: list[tuple[str, EvaluatedAnswer]], count: int
) -> list[tuple[str, EvaluatedAnswer]]:
    """`count` of the pool, taking turns over (benchmark, model), the latest model first."""
    order = sorted(
        pool, key=lambda item: digest([item[0], item[1].problem_id, item[1].sample_index])
    )
    methods = list(dict.fromkeys(method for method, _ in reversed(pool)))
    turns: dict[tuple[str, str], int] = {}
    ranked = []
    for method, answer in order:
        turn = turns.get((method, answer.benchmark), 0)
        turns[(method, answer.benchmark)] = turn + 1
        ranked.append((turn, methods.index(method), answer.benchmark, (method, answer)))
    ranked.sort(key=lambda item: item[:3])
    return [item[3] for item in ranked[:count]]


def _sample(method: str, answer: EvaluatedAnswer) -> SampleRollout:
    return SampleRollout(
        method=method,
        benchmark=answer.benchmark,
        problem_id=answer.problem_id,
        statement=answer.statement,
        gold=answer.gold,
        text=answer.text,
        extracted=answer.extracted,
        outcome=str(answer.outcome),
        truncated=answer.truncated,
        thought_tokens=answer.thought_tokens,
    )
