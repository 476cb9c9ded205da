"""Training side by side: batching (C4), loss memory (C5), DPO's reference (C6), FSDP2's cost.

python tests/benchmarks/training.py [batching] [packing] [loss] [dpo] [fsdp] [--pairs 5]

Equal results are checked before anything is timed: the same rows give the same losses. Times are
CPU seconds of all threads where one process does the work.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from training_pairs import cpu_seconds, interleave, print_table, ratio_row
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from still_core.train.batches import cut_micro_batches
from still_core.train.dpo import dpo_schedule, dpo_trainer, reference_logprobs
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources
from still_core.train.rows import PairRow, TokenRow
from still_core.train.sft import Place, pack, pad, sft_schedule, sft_trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from tiny_model import write_tiny_tokenizer

PLACE = Place(rank=0, num_ranks=1, resources=TrainResources(micro_batch_tokens=4_096))
OFF = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": []}
OFF |= {"save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "max_length": None}


def model(*, hidden: int = 160, layers: int = 4) -> Qwen2ForCausalLM:
    """By default 1.4M parameters, the miniature's order of size."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=128,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1_024,
            tie_word_embeddings=True,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_tokenizer(Path(folder))
        return AutoTokenizer.from_pretrained(folder)


def ids(rng: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.randrange(7, 100) for _ in range(rng.randint(low, high)))


def lognormal_ids(rng: random.Random) -> tuple[int, ...]:
    count = int(min(500, max(10, rng.lognormvariate(4.2, 0.7))))
    return tuple(rng.randrange(7, 100) for _ in range(count))


def train(trainer: object) -> float:
    """CPU seconds of `train`."""
    trainer.remove_callback(PrinterCallback)
    return cpu_seconds(trainer.train)


class Quiet:
    def on_step(self, metrics, tokens_per_s) -> None: ...

    def on_checkpoint(self, step, staging) -> None: ...


def batching(pairs: int) -> None:
    """C4: the same rows through TRL's default padded batches and through ours."""
    rng = random.Random(0)
    rows = [
        TokenRow(id=str(i), prompt_ids=ids(rng, 10, 30), response_ids=lognormal_ids(rng))
        for i in range(256)
    ]
    tokens = sum(row.num_tokens() for row in rows)
    batches = [rows[i : i + 32] for i in range(0, len(rows), 32)]
    padded = sum(len(b) * max(r.num_tokens() for r in b) for b in batches)
    vocabulary = tokenizer()

    def ours(packing: bool) -> float:
        recipe = SftRecipe(
            dtype="float32",
            gradient_checkpointing=False,
            batch_size=32,
            epochs=1,
            learning_rate=1e-4,
            packing=packing,
        )
        resources = TrainResources(micro_batch_tokens=512 if packing else 4_096)
        place = Place(rank=0, num_ranks=1, resources=resources)
        schedule = sft_schedule(rows, recipe, seed=0, place=place, pad_id=0)
        with tempfile.TemporaryDirectory() as folder:
            trainer = sft_trainer(
                model(),
                vocabulary,
                rows,
                recipe,
                num_steps=len(schedule.steps),
                seed=0,
                directory=Path(folder),
                use_cpu=True,
            )
            trainer.follow(schedule, Quiet(), 0)
            return train(trainer)

    def trl() -> float:
        table = [
            {
                "input_ids": [*row.prompt_ids, *row.response_ids],
                "labels": [-100] * len(row.prompt_ids) + list(row.response_ids),
            }
            for row in rows
        ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=32,
                num_train_epochs=1,
                learning_rate=1e-4,
                **OFF,
            )
            trainer = SFTTrainer(
                model=model(),
                args=arguments,
                train_dataset=Dataset.from_list(table),
                processing_class=vocabulary,
            )
            return train(trainer)

    table = []
    for name, packing in (("grouped by length", False), ("packed", True)):
        mine, theirs = interleave(lambda packing=packing: ours(packing), trl, pairs=pairs)
        bar = f"limit {padded / tokens:.2f}"
        table.append(
            ratio_row(f"CPU seconds an epoch, {name}, against TRL's default", mine, theirs, bar)
        )
    print_table(f"SFT batching, {len(rows)} rows, {tokens:,} tokens", table)


def packing(pairs: int) -> None:
    """Rows end to end against padded rows on this CPU: one forward and backward of a step."""
    rng = random.Random(0)
    rows = [
        TokenRow(id=str(i), prompt_ids=ids(rng, 10, 30), response_ids=lognormal_ids(rng))
        for i in range(32)
    ]
    lengths, net = [row.num_tokens() for row in rows], model()

    def timed(max_tokens: int, padded: bool) -> tuple[Callable[[], float], int]:
        (cut,) = cut_micro_batches(
            range(len(rows)), lengths, num_ranks=1, max_tokens=max_tokens, padded=padded
        )
        join = pad if padded else pack
        batches = [join([rows[i] for i in part], 0) for part in cut]

        def step() -> None:
            for batch in batches:
                net(**batch, use_cache=False).loss.backward()
            net.zero_grad()

        return lambda: cpu_seconds(step), sum(batch["input_ids"].numel() for batch in batches)

    table = []
    for packed_tokens, padded_tokens in ((512, 4_096), (512, 1_024), (1_024, 1_024)):
        (ours, _), (peer, cells) = timed(packed_tokens, False), timed(padded_tokens, True)
        padding = 1 - sum(lengths) / cells
        name = f"packed to {packed_tokens}, against {padding:.0%} padding"
        table.append(ratio_row(name, *interleave(ours, peer, pairs=pairs), "none"))
    print_table(f"CPU seconds of a step, {sum(lengths):,} tokens", table)


LOSS_CODE = """
import resource, sys, time, torch
way, tokens, vocabulary, hidden = sys.argv[1], 2048, 152064, 256
torch.manual_seed(0)
x = torch.randn(tokens, hidden, requires_grad=True)
w = (torch.randn(vocabulary, hidden) * 0.02).requires_grad_()
y = torch.randint(0, vocabulary, (tokens,))
from trl.kernels import ChunkedLogProbFunction
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
if way == "chunked":
    found = ChunkedLogProbFunction.apply(x, w, None, y, 1.0, 32768, None, 1.0, ("log_probs",))
    loss = -found[0].mean()
else:
    loss = torch.nn.functional.cross_entropy(x @ w.T, y)
loss.backward()
spent = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
grad = w.grad.norm().item()
print(spent, peak / 1024, loss.item(), x.grad.norm().item(), grad)
"""


def loss_memory(pairs: int) -> None:
    """C5: TRL's chunked linear cross-entropy against full logits, 2,048 tokens x 152,064."""

    def run(way: str) -> list[float]:
        command = [sys.executable, "-c", LOSS_CODE, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(part) for part in done.stdout.split()]

    chunked, full = run("chunked"), run("full")
    for a, b in zip(chunked[2:], full[2:], strict=True):
        assert abs(a - b) < 1e-4 * abs(b), (chunked, full)
    results = [(run("chunked"), run("full")) for _ in range(pairs)]
    table = [
        ratio_row(
            "peak MiB above the inputs",
            [c[1] for c, _ in results],
            [f[1] for _, f in results],
            ">= 8",
        ),
        ratio_row("seconds", [c[0] for c, _ in results], [f[0] for _, f in results], ">= 0.87"),
    ]
    print_table("Chunked cross-entropy against full logits", table)


def dpo(pairs: int) -> None:
    """C6: precomputed reference against TRL's default of a second model in every step."""
    rng = random.Random(0)
    rows = []
    for i in range(96):
        chosen, rejected = ids(rng, 40, 60), ids(rng, 40, 60)
        rows.append(
            PairRow(
                id=str(i),
                prompt_ids=ids(rng, 10, 20),
                chosen_ids=chosen,
                chosen_mask=(1,) * len(chosen),
                rejected_ids=rejected,
                rejected_mask=(1,) * len(rejected),
            )
        )
    vocabulary = tokenizer()
    recipe = DpoRecipe(
        dtype="float32", gradient_checkpointing=False, batch_size=16, epochs=1, learning_rate=1e-5
    )

    def ours() -> float:
        reference: dict[str, tuple[float, float]] = {}
        schedule = dpo_schedule(rows, recipe, seed=0, place=PLACE, pad_id=0, reference=reference)
        with tempfile.TemporaryDirectory() as folder:
            trainer = dpo_trainer(
                model(),
                vocabulary,
                recipe,
                num_steps=len(schedule.steps),
                seed=0,
                directory=Path(folder),
                use_cpu=True,
            )
            reference.update(reference_logprobs(trainer, rows, place=PLACE, pad_id=0))
            trainer.follow(schedule, Quiet(), 0)
            return train(trainer)

    def trl() -> float:
        class Ready(DPOTrainer):
            def _prepare_dataset(self, dataset, *_):
                return dataset

        table = [
            {
                "prompt_ids": list(row.prompt_ids),
                "chosen_ids": list(row.chosen_ids),
                "rejected_ids": list(row.rejected_ids),
            }
            for row in rows
        ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=16,
                num_train_epochs=1,
                learning_rate=1e-5,
                **OFF,
            )
            trainer = Ready(
                model=model(),
                ref_model=model(),
                args=arguments,
                train_dataset=Dataset.from_list(table),
                processing_class=vocabulary,
            )
            return train(trainer)

    mine, theirs = interleave(ours, trl, pairs=pairs)
    rows_out = [ratio_row("CPU seconds an epoch of steps", mine, theirs, ">= 1.2, limit 1.33")]
    print_table("DPO with a precomputed reference", rows_out)


FSDP_SIZES = {"1.4M": (160, 4), "21M": (480, 7)}
"""Hidden size and layers by the number of parameters."""
FSDP_ROW = 128
FSDP_TOKENS = (4_096, TrainResources().micro_batch_tokens)
"""Of one forward. FSDP2 moves the weights once for each, however long it is."""


def fsdp(pairs: int) -> None:
    """FSDP2 on one rank against the plain module: forward, backward and AdamW step.

    Sharded layer by layer, as transformers shards a job's ranks; a job of one rank is plain. CPU
    seconds of all threads, and pairs of single steps: other work on the machine lengthens the
    clock's seconds, and a burst of it would hit one side alone.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def stepper(net: torch.nn.Module, batch: torch.Tensor) -> Callable[[], float]:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

        def step() -> None:
            net(input_ids=batch, labels=batch, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return lambda: cpu_seconds(step)

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        mesh = init_device_mesh("cpu", (1,))
        for size, (hidden, layers) in FSDP_SIZES.items():
            for tokens in FSDP_TOKENS:
                batch = torch.randint(7, 100, (tokens // FSDP_ROW, FSDP_ROW))
                nets = model(hidden=hidden, layers=layers), model(hidden=hidden, layers=layers)
                for layer in nets[0].model.layers:
                    fully_shard(layer, mesh=mesh)
                fully_shard(nets[0], mesh=mesh)
                losses = [net(input_ids=batch, labels=batch).loss.item() for net in nets]
                assert abs(losses[0] - losses[1]) < 1e-6, losses
                sharded, plain = interleave(*(stepper(net, batch) for net in nets), pairs=pairs)
                name = f"CPU seconds of a step of {tokens:,} tokens, {size} parameters"
                rows.append(ratio_row(f"{name}, plain / FSDP2", sharded, plain, ">= 0.95"))
        dist.destroy_process_group()
    print_table("FSDP2 on one rank", rows)


BENCHMARKS = {
    "batching": batching,
    "packing": packing,
    "loss": loss_memory,
    "dpo": dpo,
    "fsdp": fsdp,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.which or BENCHMARKS:
        BENCHMARKS[name](arguments.pairs)


if __name__ == "__main__":
    main()
