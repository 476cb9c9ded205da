"""Small tables about drafts and training sets, for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NUM_BINS = 12


def draft_counts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Drafts by teacher, habit, state, and verdict or defect."""
    counts = Counter(
        (row["teacher"], row["style"], row["state"], row["outcome"] or row["defect"] or "")
        for row in rows
    )
    return [
        {
            "teacher": teacher,
            "habit": style,
            "state": state,
            "verdict or defect": why,
            "responses": n,
        }
        for (teacher, style, state, why), n in sorted(counts.items())
    ]


def first_of_each_style(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row of each habit."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault(row["style"], row)
    return list(found.values())


def length_histogram(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Demonstrations by length of thought in equal bins, tokens where counted, else characters."""
    counted = all(row["num_thought_tokens"] is not None for row in rows)
    lengths = [row["num_thought_tokens"] if counted else len(row["thought"]) for row in rows]
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // NUM_BINS))
    bins = Counter((length - low) // width for length in lengths)
    unit = "tokens" if counted else "characters"
    return [
        {unit: f"{low + i * width}-{low + (i + 1) * width - 1}", "demonstrations": bins[i]}
        for i in range(max(bins) + 1)
    ]


def perplexity_histogram(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Candidates by perplexity, in bins of a quarter of a doubling: they lie close to 1."""
    bins = Counter(
        round(4 * math.log2(perplexity)) if math.isfinite(perplexity) else math.inf
        for perplexity in (row["perplexity"] for row in rows)
    )
    return [
        {"perplexity": "inf" if step == math.inf else f"{2 ** (step / 4):.2f}", "candidates": count}
        for step, count in sorted(bins.items())
    ]
