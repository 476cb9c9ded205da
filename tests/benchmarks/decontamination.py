"""Decontamination against two rules in common use: what is found, what is found wrongly, how fast.

python tests/benchmarks/decontamination.py [--data ../shared/data] [--pairs 5]

"Any 8-gram": a training problem is dropped when it shares one run of eight lower-case words with a
benchmark (public R1 reproductions do this). "Equal text": statements are equal without white space,
dollars, backslashes and punctuation. Times are interleaved ABAB: all three hold MATH train (7,470
problems) against MATH-OAI (500) and AIME24 (30).
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from still_core.problems.collect import collect
from still_core.problems.decontaminate import decontaminate
from still_core.problems.problem import Problem
from still_core.problems.recipe import SourceSpec

FILES = {
    "math": "math_train_deepscaler.json",
    "aime": "aime_1983_2023_deepscaler.json",
    "gsm8k": "gsm8k_train.jsonl",
    "math-oai": "MATH_OAI.jsonl",
    "aime24": "AIME24.jsonl",
    "omni-math": "omni_math_num_500.jsonl",
}
Finder = Callable[[Sequence[Problem], Sequence[Problem]], set[str]]
"""Training problems and benchmark problems -> ids of the training problems that are dropped."""


def ours(training: Sequence[Problem], benchmark: Sequence[Problem]) -> set[str]:
    return decontaminate(training, {"b": benchmark}).dropped


def any_ngram(
    training: Sequence[Problem], benchmark: Sequence[Problem], length: int = 8
) -> set[str]:
    def runs(text: str) -> set[str]:
        words = text.lower().split()
        return {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}

    known = set().union(*(runs(problem.statement) for problem in benchmark))
    return {problem.id for problem in training if runs(problem.statement) & known}


def equal_text(training: Sequence[Problem], benchmark: Sequence[Problem]) -> set[str]:
    def bare(text: str) -> str:
        return re.sub(r"[\W_]", "", text).lower()

    known = {bare(problem.statement) for problem in benchmark}
    return {problem.id for problem in training if bare(problem.statement) in known}


FINDERS: dict[str, Finder] = {"ours": ours, "any 8-gram": any_ngram, "equal text": equal_text}


def reformatted(problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The problems as another collection prints them: delimiters, fractions, breaks, numbers."""
    rng = random.Random(seed)
    dressed = []
    for number, problem in enumerate(problems, 1):
        text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", problem.statement)
        text = text.replace("\\frac", rng.choice(["\\dfrac", "\\tfrac"]))
        text = re.sub(r"\s+", lambda _: rng.choice([" ", "\n"]), text)
        text = rng.choice(["", f"Problem {number}. ", f"{number}. "]) + text
        text += "\nPlease reason step by step, and put your final answer within \\boxed{}."
        dressed.append(replace(problem, id=f"dressed/{number}", statement=text))
    return dressed


def found_table(sets: dict[str, list[Problem]]) -> None:
    planted = [*sets["aime"], *reformatted(sets["aime24"], seed=0)]
    cases = {
        "AIME24 reformatted among AIME 1983-2023 (30 true)": (planted, sets["aime24"]),
        "MATH train against MATH-OAI (0 true)": (sets["math"], sets["math-oai"]),
        "GSM8K train against MATH-OAI (0 true)": (sets["gsm8k"], sets["math-oai"]),
        "AIME 1983-2023 against MATH-OAI (10 true)": (sets["aime"], sets["math-oai"]),
        "MATH train against Omni-MATH (8 true)": (sets["math"], sets["omni-math"]),
        "MATH train against AIME 1983-2023": (sets["math"], sets["aime"]),
    }
    print("| training problems dropped | " + " | ".join(FINDERS) + " |")
    print("|---|" + "---:|" * len(FINDERS))
    for name, (training, benchmark) in cases.items():
        counts = [str(len(find(training, benchmark))) for find in FINDERS.values()]
        print(f"| {name} | " + " | ".join(counts) + " |")


def speed_table(sets: dict[str, list[Problem]], pairs: int) -> None:
    benchmark = [*sets["math-oai"], *sets["aime24"]]
    seconds: dict[str, list[float]] = {name: [] for name in FINDERS}
    for _ in range(pairs):
        for name, find in FINDERS.items():
            started = time.perf_counter()
            find(sets["math"], benchmark)
            seconds[name].append(time.perf_counter() - started)
    print("\n| finder | problems/s, median | time / any 8-gram, median (min-max) |")
    print("|---|---:|---:|")
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, seconds["any 8-gram"], strict=True)]
        rate = len(sets["math"]) / statistics.median(times)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"| {name} | {rate:,.0f} | {spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    sets = {
        name: collect([SourceSpec(name=name, adapter=name, path=str(options.data / file))]).problems
        for name, file in FILES.items()
    }
    found_table(sets)
    speed_table(sets, options.pairs)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} CPUs, load average {load}")


if __name__ == "__main__":
    main()
