"""All cleaning rules over 100,000 responses of 4,000 tokens: rate and peak memory.

python tests/benchmarks/cleaning_scale.py [--rows 100000] [--workers 1]

Responses are made while they are read: steps drawn from a few thousand steps of shuffled words, so
that two responses share one step in the mean; one in fifty repeats an earlier one but for a few
words, one in a hundred has a loop. Nothing is held: kept and
dropped rows are counted and thrown away, where a flow would write them to Parquet.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import numpy as np

from still_core.refine.clean import clean_stream
from still_core.refine.kernels import token_hashes
from still_core.refine.recipe import CleanRecipe
from still_core.responses.response import Demonstration, Origin

STEPS_PER_ROW = 69
"""Of three sentences of 17 words each: some 3,700 tokens."""
NUM_STEPS = 5_000
TEXT = """
first we look at the sum then consider what happens when each term grows because every factor
divides another number so perhaps there is a pattern hidden between these values let me check
whether this holds for small cases before going further and compare with known results wait that
can not be right since the remainder must be even alternatively try the other root of the equation
"""


@cache
def steps() -> list[str]:
    """Steps of three sentences; every ninth word is a number."""
    rng = random.Random(0)
    vocabulary = TEXT.split()
    made = []
    for _ in range(NUM_STEPS):
        words = rng.choices(vocabulary, k=51)
        words[::9] = [str(rng.randrange(2, 999)) for _ in words[::9]]
        made.append(" ".join(" ".join(words[i : i + 17]) + "." for i in (0, 17, 34)))
    return made


def thought(seed: int) -> str:
    """About 4,000 tokens."""
    return "\n\n".join(random.Random(seed).choices(steps(), k=STEPS_PER_ROW))


def rows(count: int) -> Iterator[Demonstration]:
    """The demonstrations, each made when it is asked for."""
    for i in range(count):
        text = thought(i - 7 if i % 50 == 49 else i)
        if i % 50 == 49:
            text = text.replace("remainder", "rest", 20)
        if i % 100 == 98:
            text += " wait that can not be right." * 40
        yield Demonstration(
            id=f"r{i:07d}",
            problem_id=f"p{i}",
            problem_digest=f"p{i}",
            statement=f"What is the remainder of {i} to the power {i % 97} divided by 101?",
            gold=str(i % 101),
            kind="math",
            domain="math",
            bucket="hard_math",
            level=None,
            thought=text,
            solution=f"The remainder is \\boxed{{{i % 101}}}.",
            origin=Origin.DISTILLED,
            author="made",
            round=0,
            source_row=f"made:{i}",
            verdict="correct",
            verifier_version="none",
        )


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    tokens = [len(token_hashes(row.thought)) for row in rows(50)]
    clean_stream(lambda: rows(300), CleanRecipe(), keep=len_of, drop=len_of)
    before = peak_mib()
    begun, cpu = time.perf_counter(), time.process_time()
    funnel = clean_stream(
        lambda: rows(options.rows),
        CleanRecipe(),
        keep=len_of,
        drop=len_of,
        workers=options.workers,
    )
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    making = time.process_time()
    for _ in rows(500):
        pass
    making = 2 * (time.process_time() - making) / 500
    rate = 1 / (cpu / options.rows - making)
    print(
        f"{options.rows} rows of {np.mean(tokens):.0f} tokens, {options.workers} worker(s), numba "
        f"{version('numba')}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| what | value |\n|---|---:|")
    print(f"| seconds, wall clock, rows made twice included | {seconds:.1f} |")
    print(f"| seconds of this process's CPU | {cpu:.1f} |")
    if options.workers == 1:
        print(f"| rows per CPU second, without making them | {rate:.0f} |")
        print(f"| tokens per CPU second, without making them | {rate * np.mean(tokens):,.0f} |")
    print(f"| peak memory before / after, MiB | {before:.0f} / {peak_mib():.0f} |")
    print(f"\n{funnel.to_markdown()}")


def len_of(row: object) -> None:
    """Take a row and let it go."""


if __name__ == "__main__":
    main()
