"""Perplexity, held to transformers' own loss."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from still_core.errors import DataError
from still_core.progress import Progress
from still_core.refine import perplexity
from still_core.refine.perplexity import length_batches, perplexities, rollout_perplexity


def some_rows(count: int) -> tuple[list[list[int]], list[int]]:
    rng = random.Random(0)
    rows = [[rng.randrange(7, 100) for _ in range(rng.randint(5, 90))] for _ in range(count)]
    return rows, [rng.randint(1, len(row) - 1) for row in rows]


@pytest.mark.parametrize("max_batch_tokens", [1, 300, 8192])
def test_each_equals_the_loss_of_transformers(
    tiny_model_dir: Path, max_batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perplexity, "CHUNK_LOGITS", 128 * 7)  # seven response tokens at a time
    rows, prompt_lengths = some_rows(25)
    found = perplexities(tiny_model_dir, rows, prompt_lengths, max_batch_tokens=max_batch_tokens)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    for row, prompt_length, value in zip(rows, prompt_lengths, found, strict=True):
        labels = torch.tensor([[-100] * prompt_length + row[prompt_length:]])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([row]), labels=labels).loss.item()
        assert math.log(value) == pytest.approx(loss, abs=1e-4)


def test_the_model_may_be_given_itself_and_progress_is_told(tiny_model_dir: Path) -> None:
    rows, prompt_lengths = some_rows(9)
    heard: list[Progress] = []
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    found = perplexities(model, rows, prompt_lengths, max_batch_tokens=200, progress=heard.append)
    assert found == pytest.approx(perplexities(tiny_model_dir, rows, prompt_lengths), rel=1e-4)
    assert heard[-1].done == heard[-1].total == 9


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tiny_model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    assert perplexities(model, [[7, 8, 9]], [1]) == pytest.approx([128.0], rel=1e-5)


def test_the_rollouts_own_log_probs_give_its_samplers_perplexity() -> None:
    assert rollout_perplexity([math.log(0.5), math.log(0.125)]) == pytest.approx(4.0)
    with pytest.raises(DataError, match="without tokens"):
        rollout_perplexity([])


def test_no_rows_give_no_values(tiny_model_dir: Path) -> None:
    assert perplexities(tiny_model_dir, [], []) == []


@pytest.mark.parametrize(("ids", "prompt_length"), [([7, 8], 2), ([7, 8], 0), ([], 0)])
def test_a_row_without_prompt_or_response_is_refused(ids: list[int], prompt_length: int) -> None:
    with pytest.raises(DataError, match="row 1 has no prompt or no response"):
        perplexities(torch.nn.Linear(1, 1), [[7, 8], ids], [1, prompt_length])


def test_rows_and_prompt_lengths_must_match() -> None:
    with pytest.raises(DataError, match="got 1, expected 2"):
        perplexities(torch.nn.Linear(1, 1), [[7, 8], [7, 8]], [1])


def test_batches_hold_like_lengths_within_the_budget() -> None:
    lengths = [5, 90, 40, 41, 6, 300]
    batches = list(length_batches(lengths, 100))
    assert batches == [[5], [1], [3, 2], [4], [0]]
