"""The claims of STILL-2 that a run can show or fail to show, each with its figures.

rows, rates -> list of claims. A claim that does not show is said to not show; one that the run has
no data for is said to be unmeasured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from still_core.evaluate.answers import BenchmarkScore
from still_core.report.data import Claim, ModelRow, ReportData

SIGNIFICANT = 0.05
MIN_SFT_POINTS = 25.0
"""Points on the normal level that SFT on D_0 has to win over the backbone."""
MIN_EXPLORE_POINTS = 10.0
"""Points on the hard level that all explore rounds together have to win."""
MAX_LUCKY = 0.05
"""The papers give no figure for any of these bars; they are ours."""


def paper_claims(data: ReportData) -> list[Claim]:
    """All claims, held against the run's rows, explorations and difficulty rates."""
    backbone = data.rows[0]
    imitated = next((row for row in data.rows if row.distill and not row.explore), None)
    explored = _rounds(data.rows, imitated)
    return [
        _imitation_elicits(backbone, imitated),
        *_each_round_gains(imitated, explored),
        _exploration_gains_in_all(imitated, explored),
        _harder_gains_more(backbone, data.rows[-1]),
        _harder_thinks_longer(data.rows[-1]),
        _more_attempts_solve_more(data),
        _first_round_gains_most(imitated, explored),
        _answers_are_earned(data),
    ]


def _rounds(rows: Sequence[ModelRow], imitated: ModelRow | None) -> list[ModelRow]:
    """The rows of the explore rounds, one that found nothing included.

    Finds may displace distilled demonstrations, so counts do not tell a round: `ModelRow.round`
    does. Rounds of another method (SFT & DPO) are not those that the claims speak of.
    """
    if imitated is None:
        return []
    return [row for row in rows if row.round and row.method == imitated.method]


def _imitation_elicits(backbone: ModelRow, imitated: ModelRow | None) -> Claim:
    text = (
        "A few hundred distilled long thoughts elicit slow thinking: SFT on D_0 beats the "
        f"backbone by at least {MIN_SFT_POINTS:.0f} points on the normal level."
    )
    if imitated is None or not _both(backbone, imitated, "normal"):
        return _unmeasured(text, "the normal level of the backbone and of SFT on D_0")
    points = _points(backbone, imitated, "normal")
    evidence = f"{_step(backbone, imitated, 'normal')}; {_each_benchmark(imitated, 'normal')}"
    return Claim(text=text, shown=points >= MIN_SFT_POINTS, evidence=evidence)


def _each_round_gains(imitated: ModelRow | None, explored: Sequence[ModelRow]) -> list[Claim]:
    text = (
        "Exploring and training M_0 again improves the model round by round: round {round} beats "
        f"the row before it on the hard level (paired test, p < {SIGNIFICANT})."
    )
    chain = ([imitated] if imitated else []) + list(explored)
    if len(chain) < 2:
        return [_unmeasured(text.format(round=1), "an explore round")]
    claims = []
    for number, (before, after) in enumerate(pairwise(chain), start=1):
        claim = text.format(round=number)
        p = after.p_levels.get("hard")
        if p is None or not _both(before, after, "hard"):
            claims.append(_unmeasured(claim, "the hard level of both rows"))
            continue
        shown = _points(before, after, "hard") > 0 and p < SIGNIFICANT
        evidence = f"{_step(before, after, 'hard')}, p {_p(p)}; {_each_benchmark(after, 'hard')}"
        claims.append(Claim(text=claim, shown=shown, evidence=evidence))
    return claims


def _exploration_gains_in_all(imitated: ModelRow | None, explored: Sequence[ModelRow]) -> Claim:
    text = f"All explore rounds win at least {MIN_EXPLORE_POINTS:.0f} points on the hard level."
    if imitated is None or not explored or not _both(imitated, explored[-1], "hard"):
        return _unmeasured(text, "the hard level before and after exploring")
    points = _points(imitated, explored[-1], "hard")
    return Claim(
        text=text,
        shown=points >= MIN_EXPLORE_POINTS,
        evidence=_step(imitated, explored[-1], "hard"),
    )


def _harder_gains_more(backbone: ModelRow, last: ModelRow) -> Claim:
    text = (
        "Slow thinking helps most where problems are hard: relative to the backbone, the gain on "
        "the hard level is larger than on the normal level (Table 2: AIME over MATH)."
    )
    if last is backbone or not (_both(backbone, last, "normal") and _both(backbone, last, "hard")):
        return _unmeasured(text, "both levels of the backbone and of a trained model")
    normal, hard = (_ratio(backbone, last, level) for level in ("normal", "hard"))
    evidence = "; ".join(_step(backbone, last, level) for level in ("normal", "hard"))
    return Claim(text=text, shown=hard > normal, evidence=evidence)


def _harder_thinks_longer(last: ModelRow) -> Claim:
    text = "Thoughts are longer on harder problems."
    normal, hard = last.levels.get("normal"), last.levels.get("hard")
    if normal is None or hard is None or not last.distill:
        return _unmeasured(text, "both levels of a trained model")
    return Claim(
        text=text,
        shown=hard.thought_tokens > normal.thought_tokens > 0,
        evidence=(
            f"{last.label}: {normal.thought_tokens:.1f} tokens on the normal level, "
            f"{hard.thought_tokens:.1f} on the hard level"
        ),
    )


def _more_attempts_solve_more(data: ReportData) -> Claim:
    text = (
        "Rolling out until correct, at most 20 times, solves hard problems that one attempt does "
        "not."
    )
    rounds = [each for each in data.explorations if each.attempts]
    if not rounds:
        return _unmeasured(text, "an explore round")
    gains = [each.attempts[-1].cumulative - each.attempts[0].cumulative for each in rounds]
    evidence = "; ".join(
        f"round {each.round}: {_percent(each.attempts[0].cumulative)} at the first attempt, "
        f"{_percent(each.attempts[-1].cumulative)} after {each.attempts[-1].attempt}"
        for each in rounds
    )
    return Claim(text=text, shown=all(gain > 0 for gain in gains), evidence=evidence)


def _first_round_gains_most(imitated: ModelRow | None, explored: Sequence[ModelRow]) -> Claim:
    text = "Gains come mostly in the first iterations and later ones fluctuate (section 3.3)."
    chain = ([imitated] if imitated else []) + list(explored)
    if len(chain) < 3 or not all(_both(a, b, "hard") for a, b in pairwise(chain)):
        return _unmeasured(text, "at least two explore rounds on the hard level")
    points = [_points(before, after, "hard") for before, after in pairwise(chain)]
    evidence = ", ".join(f"round {n}: {p:+.1f} points" for n, p in enumerate(points, start=1))
    return Claim(
        text=text, shown=points[0] == max(points), evidence=evidence + " on the hard level"
    )


def _answers_are_earned(data: ReportData) -> Claim:
    text = (
        "Comparing final answers is enough to choose rollouts, without a reward model: "
        f"{100 * MAX_LUCKY:.0f} % at most of the explored right answers follow a wrong thought."
    )
    checked = sum(each.lucky_checked for each in data.explorations)
    if not checked:
        return _unmeasured(text, "thoughts that something can check step by step")
    lucky = sum(each.lucky for each in data.explorations)
    share = lucky / checked
    evidence = f"{lucky} of {checked} right answers follow a wrong thought ({_percent(share)})"
    return Claim(text=text, shown=share <= MAX_LUCKY, evidence=evidence)


def _unmeasured(text: str, missing: str) -> Claim:
    return Claim(text=text, shown=None, evidence=f"not measured: this run lacks {missing}")


def _both(before: ModelRow, after: ModelRow, level: str) -> bool:
    return level in before.levels and level in after.levels


def _points(before: ModelRow, after: ModelRow, level: str) -> float:
    # Rounded: 0.3 - 0.2 must count as ten points, and is a little less in floating point.
    return round(100.0 * (after.levels[level].accuracy - before.levels[level].accuracy), 9)


def _ratio(before: ModelRow, after: ModelRow, level: str) -> float:
    old, new = before.levels[level].accuracy, after.levels[level].accuracy
    return new / old if old else float("inf") if new else 1.0


def _step(before: ModelRow, after: ModelRow, level: str) -> str:
    return (
        f"{level}: {_percent(before.levels[level].accuracy)} -> "
        f"{_percent(after.levels[level].accuracy)} ({_points(before, after, level):+.1f} points, "
        f"n = {after.levels[level].n})"
    )


def _each_benchmark(row: ModelRow, level: str) -> str:
    scores: list[tuple[str, BenchmarkScore]] = [
        (name, each) for name, each in row.benchmarks.items() if each.level == level
    ]
    return ", ".join(
        f"{name} {_percent(each.accuracy)}"
        + (f" (p {_p(row.p_vs_previous[name])})" if name in row.p_vs_previous else "")
        for name, each in scores
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
