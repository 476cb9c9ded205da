"""Which rows each optimiser step sees, and how one step's rows are cut into forwards of one rank.

lengths -> plan_batches -> [step][row] -> cut_micro_batches -> [rank][micro-batch][row]

Both are pure functions of their arguments, so the data cursor of a checkpoint is the step number.
The rows of a step do not depend on the number of ranks: gradients are sums over tokens divided by
the step's number of target tokens, whatever the cut.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from still_core.errors import DataError, explain
from still_core.identity import derive_seed

WINDOW_BATCHES = 8
"""Batches whose rows are sorted together when rows are grouped by length: wide enough to save most
padding, narrow enough that a batch still mixes sources."""


def plan_batches(
    lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int, group_by_length: bool
) -> list[list[int]]:
    """Row indices of every optimiser step of all epochs, in order.

    Each epoch visits each row once, newly shuffled; the last batch of an epoch may be smaller.

    Args:
        lengths: tokens per row.
        batch_size: rows per step, >= 1.
        epochs: passes over the rows, >= 1.
        seed: of the shuffles.
        group_by_length: sort windows of `WINDOW_BATCHES` batches by length, then shuffle batches.

    Raises:
        DataError: there are no rows.
    """
    if not lengths:
        raise DataError(
            explain("no rows to train on", remedy="look at the funnel of the refinement steps")
        )
    steps: list[list[int]] = []
    for epoch in range(epochs):
        rng = random.Random(derive_seed("batches", seed, epoch))
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches = (
            _grouped(order, lengths, batch_size) if group_by_length else _cut(order, batch_size)
        )
        if group_by_length:
            rng.shuffle(batches)
        steps.extend(batches)
    return steps


def cut_micro_batches(
    rows: Sequence[int],
    lengths: Sequence[int],
    *,
    num_ranks: int,
    max_tokens: int,
    padded: bool,
) -> list[list[list[int]]]:
    """One step's rows as [rank][micro-batch][row]; every rank gets equally many micro-batches.

    Rows are sorted by length, so that a forward pads little and ranks get like work. A rank without
    a row for a slot gets an empty micro-batch: it must still join the collectives.

    Args:
        rows: row indices of the step.
        lengths: tokens per row of the whole data set.
        num_ranks: processes that share the step.
        max_tokens: most tokens of one micro-batch; a single longer row stands alone.
        padded: count rows at the length of the longest (True) or at their own length (packing).
    """
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    groups: list[list[int]] = []
    for row in ordered:
        group = groups[-1] if groups else []
        longest = lengths[group[0]] if group else 0
        tokens = (
            longest * (len(group) + 1) if padded else sum(lengths[r] for r in group) + lengths[row]
        )
        if group and tokens <= max_tokens:
            group.append(row)
        else:
            groups.append([row])
    groups = _split_to_multiple(groups, num_ranks)
    return [groups[rank::num_ranks] for rank in range(num_ranks)]


def _split_to_multiple(groups: list[list[int]], num_ranks: int) -> list[list[int]]:
    """Split the largest groups until the ranks share them evenly; then add empty ones."""
    groups = list(groups)
    while len(groups) % num_ranks:
        widest = max(range(len(groups)), key=lambda i: len(groups[i]))
        if len(groups[widest]) < 2:
            groups.append([])
            continue
        middle = len(groups[widest]) // 2
        groups[widest : widest + 1] = [groups[widest][:middle], groups[widest][middle:]]
    return groups


def _grouped(order: list[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for window in _cut(order, WINDOW_BATCHES * batch_size):
        batches.extend(_cut(sorted(window, key=lambda row: lengths[row]), batch_size))
    return batches


def _cut(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
