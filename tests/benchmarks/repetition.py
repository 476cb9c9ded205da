"""n-gram repetition against a Counter over tuples, at equal decisions.

python tests/benchmarks/repetition.py [--texts 400] [--pairs 9]

Each text has 4,000 words, every fourth repeats a stretch of itself. Both sides get the text and
return the share of 16-grams that stood in it before; the shares must be equal.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import statistics
import time
from collections import Counter
from importlib.metadata import version

import numpy as np

from still_core.refine.kernels import previous_occurrences, token_hashes

SIZE = 16
_WORDS = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


def corpus(num_texts: int, num_words: int, seed: int) -> list[str]:
    """Random texts; a quarter of them repeats some of its words."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnop", k=5)) for _ in range(3_000)]
    texts = []
    for i in range(num_texts):
        words = rng.choices(vocabulary, k=num_words)
        if i % 4 == 0:
            start, size = rng.randrange(num_words // 2), rng.randint(100, num_words // 3)
            words[-size:] = words[start : start + size]
        texts.append(" ".join(words) + ".")
    return texts


def ours(text: str) -> float:
    """Share of repeated n-grams by rolling hashes."""
    previous = previous_occurrences(token_hashes(text), SIZE)
    return float(np.count_nonzero(previous >= 0)) / len(previous)


def counted(text: str) -> float:
    """The same share by a Counter over tuples of words."""
    words = _WORDS.findall(text.lower())
    counts = Counter(zip(*(words[k:] for k in range(SIZE)), strict=False))
    return 1.0 - len(counts) / (len(words) - SIZE + 1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    texts = corpus(options.texts, 4_000, seed=1)
    for text in texts[:40]:
        assert abs(ours(text) - counted(text)) < 1e-12
    mine, theirs = [], []
    for _ in range(options.pairs):
        for run, times in ((ours, mine), (counted, theirs)):
            begun = time.perf_counter()
            for text in texts:
                run(text)
            times.append(time.perf_counter() - begun)
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    print(
        f"{len(texts)} texts of 4,000 words, n = {SIZE}; numba {version('numba')}, numpy "
        f"{np.__version__}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| contender | texts/s | ours is faster by (median, min-max) |\n|---|---:|---:|")
    print(f"| ours | {len(texts) / statistics.median(mine):,.0f} | |")
    print(
        f"| Counter over tuples | {len(texts) / statistics.median(theirs):,.0f} "
        f"| {statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f}) |"
    )


if __name__ == "__main__":
    main()
