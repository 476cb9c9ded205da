"""The backbone M_0: a Qwen2-shaped model of about a million parameters, schooled on drills.

    drills (prompt, answer) -> batches of like lengths -> Muon + AdamW -> model directory

Loss on the answers alone; statements are random and teach nothing. Shapes: B rows, T tokens.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from still_core.errors import MissingError, explain
from still_core.miniature.drills import draw
from still_core.miniature.recipe import SchoolingRecipe
from still_core.miniature.tokenizer import (
    ASSISTANT,
    END,
    MAX_LENGTH,
    PAD,
    USER,
    VOCABULARY_SIZE,
    build_tokenizer,
    vocabulary,
)
from still_core.progress import Progress

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a token without loss."""

WIDTH_STEP = 8
"""Batches are padded to a multiple of this many tokens."""

WEIGHTS = Path(__file__).parent / "weights"
"""The trained backbone that ships with the package."""

Batch = tuple[list[list[int]], list[list[int]]]
"""Token ids and labels, both [B][T], padded to one length."""


def backbone_directory() -> Path:
    """The shipped backbone: weights, config, tokenizer.

    Raises:
        MissingError: this copy of the package holds no weights.
    """
    if not (WEIGHTS / "model.safetensors").is_file():
        raise MissingError(
            explain(
                "no trained backbone in the package",
                expected=WEIGHTS / "model.safetensors",
                remedy="make one with the backbone flow",
            )
        )
    return WEIGHTS


def random_backbone(directory: Path, seed: int = 0, recipe: SchoolingRecipe | None = None) -> Path:
    """An untrained backbone of the same shape, for tests that need a model and not its skill."""
    save_backbone(_build_model(recipe or SchoolingRecipe(), seed), directory)
    return directory


def train_backbone(
    recipe: SchoolingRecipe,
    directory: Path,
    *,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """School a backbone and write it to `directory`.

    Args:
        recipe: shape and schooling; the seed fixes initial weights and every drill.
        directory: receives model.safetensors, config, tokenizer and `schooling.json`.
        device: `cpu` or `cuda`; bf16 autocast on either.
        progress: told every 50 steps, with the mean loss since.

    Returns:
        What `schooling.json` records: recipe, seconds, tokens, last loss, sha256 of the weights.
    """
    import torch

    model = _build_model(recipe, recipe.seed).to(device)
    model.train()
    muon, adam = _optimizers(model, recipe)
    began, tokens, losses = time.monotonic(), 0, []
    drills = _batches(recipe)
    for step in range(recipe.num_steps):
        # Batches hold rows of one length, so mostly one kind of drill: a step mixes several.
        batches = list(islice(drills, recipe.batches_per_step))
        scale = _schedule(step, recipe)
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * scale
        loss = torch.zeros((), device=device)
        answers = sum(label != IGNORED for _, labels in batches for row in labels for label in row)
        for rows, labels in batches:
            inputs, targets = torch.tensor(rows, device=device), torch.tensor(labels, device=device)
            with torch.autocast(device, torch.bfloat16):
                logits = model(input_ids=inputs, use_cache=False).logits
            part = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(),
                targets[:, 1:].flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
            (part / answers).backward()  # type: ignore[no-untyped-call]
            loss += part.detach() / answers
            tokens += inputs.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
        if progress and ((step + 1) % 50 == 0 or step + 1 == recipe.num_steps):
            mean = float(torch.stack(losses[-50:]).mean())
            rate = tokens / (time.monotonic() - began)
            progress(
                Progress(
                    stage="backbone",
                    done=step + 1,
                    total=recipe.num_steps,
                    unit="steps",
                    facts={"loss": mean, "tokens_per_s": rate},
                )
            )
    save_backbone(model, directory)
    record = {
        "recipe": recipe.model_dump(),
        "device": device,
        "seconds": round(time.monotonic() - began, 1),
        "tokens": tokens,
        "loss": float(torch.stack(losses[-100:]).mean()),
        "torch": torch.__version__,
        "sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
    }
    (directory / "schooling.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def save_backbone(model: Any, directory: Path) -> None:
    """Weights as float32 safetensors, config, generation config and tokenizer."""
    import torch
    from transformers import AutoTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    model.to("cpu", torch.float32).save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    # Once more as training jobs write it: engines stay up where only the weights change.
    AutoTokenizer.from_pretrained(directory).save_pretrained(directory)


def _build_model(recipe: SchoolingRecipe, seed: int) -> Any:
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    ids = vocabulary()
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    generation: Any = GenerationConfig  # untyped upstream
    model.generation_config = generation(eos_token_id=ids[END], pad_token_id=ids[PAD])
    return model


def _optimizers(
    model: Any, recipe: SchoolingRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices inside the layers (arXiv:2502.16982 scaling), AdamW for the rest."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.muon_learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return muon, adam


def _schedule(step: int, recipe: SchoolingRecipe) -> float:
    """Linear warm-up, then linear decay to 2 % of the peak rate."""
    warmup = max(1, round(recipe.num_steps * recipe.warmup_ratio))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.02, 1 - (step - warmup) / max(1, recipe.num_steps - warmup))


def _batches(recipe: SchoolingRecipe) -> Iterator[Batch]:
    """Batches of at most `tokens_per_batch` tokens; rows of like length stand together."""
    rng = random.Random(f"drills/{recipe.seed}")
    tokenizer, ids = build_tokenizer(), vocabulary()
    while True:
        drills = [draw(rng) for _ in range(2048)]
        prompts = tokenizer([USER + prompt + ASSISTANT for prompt, _ in drills])["input_ids"]
        answers = tokenizer([answer + END for _, answer in drills])["input_ids"]
        rows = sorted(zip(prompts, answers, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        batches = list(_cut(rows, recipe.tokens_per_batch, ids[PAD]))
        rng.shuffle(batches)
        yield from batches


def _cut(rows: list[tuple[list[int], list[int]]], budget: int, pad: int) -> Iterator[Batch]:
    """Full batches of rows sorted by length; what is left over at a width waits for the next one.

    Few widths, each with one number of rows: kernels are prepared per shape, and many shapes cost
    memory and time.
    """
    waiting: list[tuple[list[int], list[int]]] = []
    width = 0
    for row in rows:
        needed = -(-(len(row[0]) + len(row[1])) // WIDTH_STEP) * WIDTH_STEP
        width = max(width, needed)
        waiting.append(row)
        if len(waiting) < budget // width:
            continue
        chunk = waiting[: budget // width]
        waiting, size = waiting[budget // width :], width
        inputs = [p + a + [pad] * (size - len(p) - len(a)) for p, a in chunk]
        labels = [[IGNORED] * len(p) + a + [IGNORED] * (size - len(p) - len(a)) for p, a in chunk]
        yield inputs, labels
