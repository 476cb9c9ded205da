"""Near-duplicate search against datasketch and rensa at known recall.

python tests/benchmarks/near_duplicates.py [--texts 2000] [--pairs 7]

Texts of 600 random words; every fifth text is a near copy of the one before it, at a Jaccard
similarity of 0.80 to 0.95 of 5-word shingles. All contenders get the same texts in the same order
and return the texts to drop; recall and precision are taken against the planted copies. datasketch
and rensa get shingles made by Python, and their batch interfaces; where a row says `ready shingles`
making them is not counted for them, while ours always starts from the text.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from still_core.refine.duplicates import near_duplicates

THRESHOLD = 0.8
NUM_PERMUTATIONS = 128
SHINGLE_WORDS = 5
Found = set[int]


def corpus(num_texts: int, num_words: int, seed: int) -> tuple[list[str], Found]:
    """Texts and the places of the planted near copies."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(20_000)]
    texts: list[str] = []
    copies: Found = set()
    for i in range(num_texts):
        if i % 5 == 4:
            texts.append(near_copy(texts[-1], rng, vocabulary, rng.uniform(0.80, 0.95)))
            copies.add(i)
        else:
            texts.append(" ".join(rng.choices(vocabulary, k=num_words)))
    return texts, copies


def near_copy(text: str, rng: random.Random, vocabulary: list[str], similarity: float) -> str:
    """Change single words until the similarity is at or just above the one asked for."""
    words = text.split(" ")
    own = set(shingles(text))
    places = list(range(len(words)))
    rng.shuffle(places)
    for place in places:
        old, words[place] = words[place], rng.choice(vocabulary)
        other = set(shingles(" ".join(words)))
        if len(own & other) / len(own | other) < similarity:
            words[place] = old
            break
    return " ".join(words)


def shingles(text: str) -> list[str]:
    """5-word shingles as strings."""
    words = text.split(" ")
    return [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)]


def ours(texts: list[str]) -> Found:
    """The project's search, from the text on."""
    keys = [f"{i:08d}" for i in range(len(texts))]
    found = near_duplicates(texts, keys, threshold=THRESHOLD, shingle_tokens=SHINGLE_WORDS)
    return {one.index for one in found}


def datasketch_batch(ready: list[list[bytes]], bands: int | None = None) -> Found:
    """datasketch: `update_batch` per text, LSH, estimated similarity of candidates checked."""
    from datasketch import MinHash, MinHashLSH

    rows = None if bands is None else NUM_PERMUTATIONS // bands
    index = MinHashLSH(
        threshold=THRESHOLD,
        num_perm=NUM_PERMUTATIONS,
        params=None if bands is None else (bands, rows),
    )
    dropped: Found = set()
    kept: dict[int, MinHash] = {}
    for i, one in enumerate(ready):
        signature = MinHash(num_perm=NUM_PERMUTATIONS)
        signature.update_batch(one)
        candidates = index.query(signature)
        # A margin of two standard errors, or half of the true pairs at 0.80 would fail the check.
        limit = THRESHOLD - 0.07 if bands else 0.0
        if any(signature.jaccard(kept[j]) >= limit for j in candidates):
            dropped.add(i)
        else:
            index.insert(i, signature)
            kept[i] = signature
    return dropped


def rensa_matrix(ready: list[list[str]], bands: int) -> Found:
    """rensa: one digest matrix, banded search in one shot; a pair's later text is dropped."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets(ready, NUM_PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, NUM_PERMUTATIONS, bands)
    flags = index.query_duplicate_flags_matrix_one_shot(matrix)
    rows = matrix.to_rows()
    dropped: Found = set()
    suspects = [i for i, flag in enumerate(flags) if flag]
    signed = {i: np.array(rows[i]) for i in suspects}
    width = NUM_PERMUTATIONS // bands
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for i in suspects:
        for band in range(bands):
            key = (band, signed[i][band * width : (band + 1) * width].tobytes())
            others = buckets.setdefault(key, [])
            if any(np.mean(signed[i] == signed[j]) >= THRESHOLD - 0.07 for j in others):
                dropped.add(i)
            else:
                others.append(i)
    return dropped


def rensa_flags(ready: list[list[str]], bands: int) -> Found:
    """rensa: its one-shot flags alone; they mark both texts of a pair and check nothing."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets(ready, NUM_PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, NUM_PERMUTATIONS, bands)
    flags = index.query_duplicate_flags_matrix_one_shot(matrix)
    return {i for i, flag in enumerate(flags) if flag}


def timed(run: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds and result of one run."""
    begun = time.perf_counter()
    found = run()
    return time.perf_counter() - begun, found


def quality(found: Found, copies: Found) -> str:
    """Recall and precision against the planted copies."""
    right = len(found & copies)
    return f"{right / len(copies):.3f} | {right / max(1, len(found)):.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--words", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    texts, copies = corpus(options.texts, options.words, seed=1)
    strings = [shingles(text) for text in texts]
    data = [[s.encode() for s in one] for one in strings]
    contenders: dict[str, Callable[[], Found]] = {
        "datasketch update_batch, default LSH, ready shingles": lambda: datasketch_batch(data),
        "datasketch update_batch, 16 x 8 bands, ready shingles": lambda: datasketch_batch(data, 16),
        "rensa matrix, 16 x 8 bands, ready shingles": lambda: rensa_matrix(strings, 16),
        "rensa matrix, 32 x 4 bands, ready shingles": lambda: rensa_matrix(strings, 32),
        "rensa flags alone, 16 x 8 bands, ready shingles": lambda: rensa_flags(strings, 16),
        "rensa matrix, 32 x 4 bands, from the text": lambda: rensa_matrix(
            [shingles(text) for text in texts], 32
        ),
    }
    ours(texts[:50])
    times: dict[str, list[float]] = {name: [] for name in contenders}
    own: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Found] = {}
    for _ in range(options.pairs):
        for name, run in contenders.items():
            seconds, results[name] = timed(run)
            times[name].append(seconds)
            seconds, mine = timed(lambda: ours(texts))
            own[name].append(seconds)
    rate = len(texts) / statistics.median([s for one in own.values() for s in one])
    print(
        f"{len(texts)} texts of {options.words} words, {len(copies)} near copies; "
        f"datasketch {version('datasketch')}, rensa {version('rensa')}, numba {version('numba')}, "
        f"numpy {np.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    print("| contender | recall | precision | texts/s | ours is faster by (median, min-max) |")
    print("|---|---:|---:|---:|---:|")
    print(f"| ours, from the text | {quality(mine, copies)} | {rate:,.0f} | |")
    for name in contenders:
        ratios = [theirs / mine for theirs, mine in zip(times[name], own[name], strict=True)]
        speed = len(texts) / statistics.median(times[name])
        print(
            f"| {name} | {quality(results[name], copies)} | {speed:,.0f} "
            f"| {statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f}) |"
        )


if __name__ == "__main__":
    main()
