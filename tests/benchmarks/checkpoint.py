"""How long a checkpoint stops training (C12): our staging against a plain copy, torch.save and DCP.

python tests/benchmarks/checkpoint.py [--hidden 512] [--pairs 5] [--s3]

Blocked time is the copy to fresh memory; hashing, writing and uploading run behind the next steps.
"Copy" is `clone` of the same tensors; both sides of that row are CPU seconds, which other work on
the machine lengthens little. With --s3 the store is a real S3 server on this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from training_pairs import cpu_seconds, interleave, print_table, ratio_row, seconds
from transformers import Qwen2Config, Qwen2ForCausalLM

from still_core.store import Store
from still_core.train.checkpoint import Shards, restore, stage, write_shard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
import s3

COPIES = 3


def trained(hidden: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model after one AdamW step, so that the moments exist."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=4_096,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = torch.randint(0, 4_096, (1, 16))
    model(input_ids=batch, labels=batch).loss.backward()
    optimizer.step()
    return model, optimizer


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What a checkpoint holds, as state dicts."""
    names = {id(p): name for name, p in model.named_parameters()}
    moments = {
        f"{kind}/{names[id(p)]}": tensor
        for p, state in optimizer.state.items()
        for kind, tensor in state.items()
    }
    return {"model": dict(model.named_parameters()), "optim": moments}


def tensors_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    return [*(p.detach() for p in model.parameters()), *moments]


@contextlib.contextmanager
def opened_store(use_s3: bool) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        if not use_s3:
            yield Store(Path(folder) / "store")
            return
        weed = Path(folder) / "weed"
        weed.mkdir()
        process, endpoint = s3.start_server(weed)
        os.environ.update(s3.environment(endpoint))
        try:
            yield Store(f"s3://{s3.BUCKET}/bench", cache=Path(folder) / "cache")
        finally:
            s3.stop_server(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--s3", action="store_true")
    arguments = parser.parse_args()
    model, optimizer = trained(arguments.hidden)
    tensors = tensors_of(model, optimizer)
    names = {name: 1.0 for name, _ in model.named_parameters()}
    facts = {"step": 1, "scheduler": {}, "adam_steps": names, "metrics": []}
    kept: list[object] = []

    def ours() -> float:
        kept.clear()
        return seconds(lambda: kept.append(stage(model, optimizer, rank=0, state=facts)))

    def ours_cpu() -> float:
        kept.clear()
        return cpu_seconds(lambda: kept.append(stage(model, optimizer, rank=0, state=facts)))

    def copy_cpu() -> float:
        kept.clear()
        return cpu_seconds(lambda: kept.append([t.clone() for t in tensors]))

    staged = stage(model, optimizer, rank=0, state=facts)
    with tempfile.TemporaryDirectory() as folder, opened_store(arguments.s3) as store:
        path = Path(folder)
        check_round_trip(staged, path / "check", store, arguments.hidden)

        def torch_save() -> float:
            return seconds(lambda: torch.save(state_of(model, optimizer), path / "torch.pt"))

        def dcp_save() -> float:
            shutil.rmtree(path / "dcp", ignore_errors=True)
            with contextlib.redirect_stderr(io.StringIO()):
                return seconds(
                    lambda: dcp.save(state_of(model, optimizer), checkpoint_id=path / "dcp")
                )

        mine, theirs = interleave(ours_cpu, copy_cpu, pairs=COPIES * arguments.pairs)
        rows = [ratio_row("CPU seconds, against a copy in memory", mine, theirs, ">= 0.5")]
        for name, peer, bar in (
            ("torch.save to disk", torch_save, ">= 5"),
            ("DCP, synchronous, to disk", dcp_save, ">= 5"),
        ):
            mine, theirs = interleave(ours, peer, pairs=arguments.pairs)
            rows.append(ratio_row(f"blocked seconds, against {name}", mine, theirs, bar))
        behind = seconds(lambda: write_and_publish(staged, path / "part", store))
        where = "S3 server" if arguments.s3 else "local folder"
        print_table(f"Checkpoint of {staged.num_bytes() / 2**20:.0f} MiB, {where}", rows)
        print(f"\nwritten, hashed and published behind training in {behind:.2f} s")


def write_and_publish(staged: object, directory: Path, store: Store) -> None:
    write_shard(staged, directory)
    store.publish_dir("bench/parts", "1", directory)


def check_round_trip(staged: object, directory: Path, store: Store, hidden: int) -> None:
    """What is written comes back bit for bit."""
    write_shard(staged, directory)
    part = store.publish_dir("bench/check", "1", directory)
    model, optimizer = trained(hidden)
    expected = [t.clone() for t in tensors_of(model, optimizer)]
    with torch.no_grad():
        for tensor in tensors_of(model, optimizer):
            tensor.zero_()
    restore(Shards.open(store, [part]), model, optimizer)
    found = tensors_of(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
