"""Agreement and speed of the verifier beside math-verify 0.9, on the same rows in the same run.

    python tests/benchmarks/verification.py agreement ../shared/data
    python tests/benchmarks/verification.py speed ../shared/data
    python tests/benchmarks/verification.py hostile

Prints Markdown. Speeds are interleaved (A B A B ...); each figure is the median with minimum and
maximum. math-verify runs in the main thread with its own time-outs, as its authors mean it to.
"""

# ruff: noqa: E501 - table rows
from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from still_core.problems.problem import AnswerKind
from still_core.verify import Answer, Outcome, VerifierPool

sys.path.insert(0, str(Path(__file__).parent))
from verification_hostile import GOLD, fixed_cases, generated_cases
from verification_rows import LabelledRow, labelled_rows, left_out

PAIRS = 5
SPEED_FILES = ("model_answers_math500", "model_outputs_")
BASELINE_SAMPLE = 200
"""Pairs per round given to math-verify, which judges some 50 a second."""


def math_verify_accepts(gold: str, pred: str) -> bool:
    """math-verify's own two calls."""
    from math_verify import parse, verify

    framed = [text if "$" in text or "\\boxed" in text else f"${text}$" for text in (gold, pred)]
    try:
        return bool(verify(parse(framed[0]), parse(framed[1])))
    except Exception as error:
        print(f"math-verify raised {type(error).__name__} on {gold[:40]!r}", file=sys.stderr)
        return False


def agreement(data: Path) -> None:
    """One table per file: ours and math-verify's false accepts and rejects on the same rows."""
    reasons = left_out()
    rows = [row for row in labelled_rows(data) if (row.file, row.row) not in reasons]
    rows = [row for row in rows if row.answer.kind is AnswerKind.MATH]
    with VerifierPool() as pool:
        ours = [v.outcome is Outcome.CORRECT for v in pool.verify_many([r.answer for r in rows])]
    theirs = [_baseline(row) for row in rows]
    print(
        "| rows | n | agree | false accepts | false rejects | math-verify: agree | false accepts | false rejects |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for file in [*dict.fromkeys(row.file for row in rows), "all"]:
        chosen = [i for i, row in enumerate(rows) if file in (row.file, "all")]
        labels = [rows[i].expected for i in chosen]
        cells = [
            *_errors(labels, [ours[i] for i in chosen]),
            *_errors(labels, [theirs[i] for i in chosen]),
        ]
        print(f"| {file} | {len(chosen)} | " + " | ".join(cells) + " |")
    print(
        f"\nLeft out: {len(reasons)} rows, each with its reason in {Path(__file__).with_name('verification_left_out.csv').name}."
    )
    print(_conditions())


def _baseline(row: LabelledRow) -> bool:
    if row.baseline is not None:
        return row.baseline
    return math_verify_accepts(row.answer.gold, row.answer.pred)


def _errors(labels: list[bool], accepted: list[bool]) -> tuple[str, str, str]:
    pairs = list(zip(labels, accepted, strict=True))
    accepts = sum(ok and not label for label, ok in pairs)
    rejects = sum(label and not ok for label, ok in pairs)
    return f"{1 - (accepts + rejects) / len(pairs):.2%}", str(accepts), str(rejects)


def speed(data: Path) -> None:
    """Answers per second of one worker and its caller, and of math-verify in one process."""
    rows = [r.answer for r in labelled_rows(data) if r.file.startswith(SPEED_FILES)]
    answers = [answer for answer in rows if answer.kind is AnswerKind.MATH]
    rng = random.Random(0)
    rng.shuffle(answers)
    hostile = [Answer(id="h", gold=GOLD, pred=case) for case in fixed_cases("/nonexistent/canary")]
    mixed = [rng.choice(hostile) if rng.random() < 0.01 else answer for answer in answers]
    figures: dict[str, list[float]] = {"ours": [], "ours, 1 % hostile": [], "math-verify": []}
    with (
        VerifierPool(cache_size=0) as clean,
        VerifierPool(cache_size=0, deadline_s=1.0) as attacked,
    ):
        clean.verify(Answer(id="w", gold="x", pred="y"))
        attacked.verify(Answer(id="w", gold="x", pred="y"))
        math_verify_accepts("x", "y")
        for _ in range(PAIRS):
            sample = rng.sample(answers, BASELINE_SAMPLE)
            figures["ours"].append(_rate(len(answers), lambda: clean.verify_many(answers)))
            figures["math-verify"].append(
                _rate(
                    len(sample), lambda s=sample: [math_verify_accepts(a.gold, a.pred) for a in s]
                )  # type: ignore[misc]
            )
            figures["ours, 1 % hostile"].append(
                _rate(len(mixed), lambda: attacked.verify_many(mixed))
            )
    base = statistics.median(figures["math-verify"])
    print("| verifier | answers/s, median | min to max | times math-verify |\n|---|---|---|---|")
    for name, rates in figures.items():
        middle = statistics.median(rates)
        print(
            f"| {name} | {middle:.0f} | {min(rates):.0f} to {max(rates):.0f} | {middle / base:.1f} |"
        )
    print(
        f"\n{len(answers)} answers, no cache, one worker process and its caller on one core "
        f"({sorted(os.sched_getaffinity(0))}); {PAIRS} interleaved rounds."
    )
    print(_conditions())


def _rate(count: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def hostile() -> None:
    """The fixed corpus and 50,000 generated answers, one by one, at a deadline of one second."""
    print(
        "| corpus | answers | outcomes | slowest, s | over deadline + 0.2 s | rewarded |\n|---|---|---|---|---|---|"
    )
    corpora = {
        "fixed": fixed_cases("/nonexistent/canary"),
        "generated": list(generated_cases(50_000, 2025)),
    }
    for name, cases in corpora.items():
        with VerifierPool(deadline_s=1.0) as pool:
            pool.verify(Answer(id="w", gold="x", pred="y"))
            verdicts = [pool.verify(Answer(id="h", gold=GOLD, pred=case)) for case in cases]
        outcomes = Counter(str(verdict.outcome) for verdict in verdicts)
        slowest = max(verdict.seconds for verdict in verdicts)
        late = sum(verdict.seconds > 1.2 for verdict in verdicts)
        counts = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items()))
        print(
            f"| {name} | {len(cases)} | {counts} | {slowest:.3f} | {late} | {outcomes['correct']} |"
        )
    print("\n" + _conditions())


def _conditions() -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("math-verify", "sympy", "mpmath")
    )
    return f"{versions}; Python {sys.version.split()[0]}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


def main() -> None:
    """Run the part asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["agreement", "speed", "hostile"])
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    chosen = parser.parse_args()
    if chosen.part == "hostile":
        hostile()
    elif chosen.part == "speed":
        # One core for both sides: the caller and its worker share what math-verify has alone.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        speed(chosen.data)
    else:
        agreement(chosen.data)


if __name__ == "__main__":
    main()
