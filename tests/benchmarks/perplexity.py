"""Perplexity: length-sorted batches and chunked logits against a padded loop at batch 8 and 1.

python tests/benchmarks/perplexity.py [--rows 300] [--pairs 5]

Also times packed rows under a block-diagonal mask, the way not taken. Lengths are log-normal, as
those of thoughts are. All ways are checked to agree to 1e-4 before anything is timed.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from training_pairs import interleave, print_table, ratio_row, seconds
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from still_core.refine.perplexity import MAX_BATCH_TOKENS, length_batches, perplexities

VOCABULARY = 4_096


def make_rows(count: int) -> tuple[list[list[int]], list[int]]:
    """Rows of 30 to 1,000 tokens, median 150; the first 20 are the prompt."""
    rng = random.Random(0)
    lengths = [int(min(1_000, max(30, rng.lognormvariate(5.0, 0.8)))) for _ in range(count)]
    return [[rng.randrange(VOCABULARY) for _ in range(n)] for n in lengths], [20] * count


def padded_loop(model, rows: Sequence[Sequence[int]], prompts: Sequence[int], batch: int):
    """What a plain script does: rows in their order, padded, full logits, cross-entropy."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            width = max(map(len, part))
            ids = torch.zeros(len(part), width, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for i, row in enumerate(part):
                ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
                cut = prompts[start + i]
                labels[i, cut : len(row)] = torch.tensor(row[cut:])
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
            nll = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
            ).view(len(part), -1)
            found += (nll.sum(1) / (labels[:, 1:] != -100).sum(1)).exp().tolist()
    return found


def packed(model, rows: Sequence[Sequence[int]], prompts: Sequence[int]):
    """Rows end to end in one sequence; positions that restart make the mask block-diagonal."""
    found = [math.nan] * len(rows)
    with torch.inference_mode():
        for batch in length_batches([len(row) for row in rows], 1_024):
            ids = torch.tensor([[token for i in batch for token in rows[i]]])
            positions = torch.tensor([[p for i in batch for p in range(len(rows[i]))]])
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
            nll = torch.nn.functional.cross_entropy(
                logits[:-1].float(), ids[0, 1:], reduction="none"
            )
            start = 0
            for i in batch:
                end = start + len(rows[i])
                found[i] = math.exp(nll[start + prompts[i] - 1 : end - 1].mean().item())
                start = end
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2_048,
    )
    with tempfile.TemporaryDirectory() as folder:
        Qwen2ForCausalLM(config).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(Path(folder)).eval()
    rows, prompts = make_rows(arguments.rows)
    ways: dict[str, Callable[[], list[float]]] = {
        "padded loop, batch 8": lambda: padded_loop(model, rows, prompts, 8),
        "padded loop, batch 1": lambda: padded_loop(model, rows, prompts, 1),
        "packed rows, block-diagonal mask": lambda: packed(model, rows, prompts),
    }
    expected = perplexities(model, rows, prompts)
    for name, way in ways.items():
        worst = max(abs(math.log(a / b)) for a, b in zip(way(), expected, strict=True))
        assert worst < 1e-4, f"{name} differs by {worst}"
    tokens = sum(map(len, rows))
    padded = sum(
        len(batch) * max(len(rows[i]) for i in batch)
        for batch in length_batches([len(r) for r in rows], MAX_BATCH_TOKENS)
    )
    table = []
    for name, way in ways.items():
        ours, peer = interleave(
            lambda: seconds(lambda: perplexities(model, rows, prompts)),
            lambda way=way: seconds(way),
            pairs=arguments.pairs,
        )
        bar = ">= 2" if name.endswith("8") else ""
        table.append(ratio_row(f"seconds, against {name}", ours, peer, bar))
    print_table(f"Perplexity of {len(rows)} responses, {tokens:,} tokens", table)
    print(f"\npadding in our batches: {1 - tokens / padded:.1%}")


if __name__ == "__main__":
    main()
