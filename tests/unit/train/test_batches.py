"""The batch plan: every row once an epoch, the same for any number of ranks."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from still_core.errors import DataError
from still_core.train.batches import cut_micro_batches, plan_batches


def some_lengths(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randint(5, 200) for _ in range(count)]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (7, 3), (100, 16), (96, 96)])
def test_each_epoch_visits_each_row_once(rows: int, batch_size: int, grouped: bool) -> None:
    steps = plan_batches(
        some_lengths(rows), batch_size=batch_size, epochs=3, seed=1, group_by_length=grouped
    )
    per_epoch = -(-rows // batch_size)
    assert len(steps) == 3 * per_epoch
    for epoch in range(3):
        seen = Counter(
            row for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for row in step
        )
        assert seen == Counter(range(rows))
    assert max(len(step) for step in steps) <= batch_size


def test_the_plan_depends_on_seed_and_epoch_alone() -> None:
    lengths = some_lengths(50)
    fields = {"batch_size": 8, "epochs": 2, "group_by_length": False}
    first = plan_batches(lengths, seed=1, **fields)
    assert first == plan_batches(lengths, seed=1, **fields)
    assert first != plan_batches(lengths, seed=2, **fields)
    assert first[:7] != first[7:]


def test_grouping_by_length_saves_most_of_the_padding() -> None:
    lengths = some_lengths(800)

    def padding(grouped: bool) -> float:
        steps = plan_batches(lengths, batch_size=16, epochs=1, seed=0, group_by_length=grouped)
        padded = sum(len(step) * max(lengths[row] for row in step) for step in steps)
        return 1 - sum(lengths) / padded

    assert padding(False) > 0.4
    assert padding(True) < 0.12


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("padded", [True, False])
def test_micro_batches_cover_the_step_evenly_within_the_budget(
    num_ranks: int, padded: bool
) -> None:
    lengths = some_lengths(40)
    rows = list(range(0, 40, 2))
    cut = cut_micro_batches(rows, lengths, num_ranks=num_ranks, max_tokens=400, padded=padded)
    assert len(cut) == num_ranks
    assert len({len(micro_batches) for micro_batches in cut}) == 1
    flat = [row for micro_batches in cut for group in micro_batches for row in group]
    assert sorted(flat) == rows
    for group in (group for micro_batches in cut for group in micro_batches if group):
        size = (
            max(lengths[row] for row in group) * len(group)
            if padded
            else sum(lengths[row] for row in group)
        )
        assert size <= 400 or len(group) == 1


def test_a_step_with_fewer_rows_than_ranks_gives_empty_micro_batches() -> None:
    cut = cut_micro_batches([3], [9] * 4, num_ranks=4, max_tokens=100, padded=True)
    assert sorted(cut) == [[[]], [[]], [[]], [[3]]]


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    cut = cut_micro_batches([0, 1, 2], [500, 20, 20], num_ranks=1, max_tokens=50, padded=True)
    assert cut == [[[0], [1, 2]]]


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        plan_batches([], batch_size=4, epochs=1, seed=0, group_by_length=True)
