"""Supervised fine-tuning: demonstrations in, a model that thinks out (STILL-2 section 2).

demonstrations -> tokens (prompt masked) -> planned batches -> TRL's SFTTrainer -> model folder
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from still_core.train.batches import cut_micro_batches, plan_batches
from still_core.train.exact import ExactTraining, Schedule
from still_core.train.recipe import Optimisation, SftRecipe, TrainResources
from still_core.train.rows import TokenRow

IGNORED = -100
"""Label of tokens that the loss does not see."""
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""The recipe's schedules by transformers' names, where "constant" is one without a warm-up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """This process among the ranks of a job."""

    rank: int
    num_ranks: int
    resources: TrainResources


def sft_schedule(
    rows: Sequence[TokenRow], recipe: SftRecipe, *, seed: int, place: Place, pad_id: int
) -> Schedule:
    """All steps of this rank, with the function that makes its batches."""
    lengths = [row.num_tokens() for row in rows]
    steps = plan_batches(
        lengths,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=seed,
        group_by_length=recipe.group_by_length,
    )
    cut = [
        cut_micro_batches(
            step,
            lengths,
            num_ranks=place.num_ranks,
            max_tokens=place.resources.micro_batch_tokens,
            padded=not recipe.packing,
        )[place.rank]
        for step in steps
    ]

    def collate(indices: Sequence[int]) -> dict[str, Any]:
        chosen = [rows[index] for index in indices]
        return pack(chosen, pad_id) if recipe.packing else pad(chosen, pad_id)

    return Schedule(
        steps=cut,
        collate=collate,
        tokens=[sum(lengths[row] for row in step) for step in steps],
        num_rows=[len(step) for step in steps],
        num_ranks=place.num_ranks,
        checkpoint_every=place.resources.checkpoint_every,
    )


def pad(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Any]:
    """Rows [B, T] padded on the right; labels are ignored on prompts and padding."""
    import torch

    width = max((row.num_tokens() for row in rows), default=2)
    height = max(len(rows), 1)
    input_ids = torch.full((height, width), pad_id)
    labels = torch.full((height, width), IGNORED)
    attention_mask = torch.zeros((height, width), dtype=torch.long)
    if not rows:
        attention_mask[:] = 1
    for number, row in enumerate(rows):
        ids = torch.tensor([*row.prompt_ids, *row.response_ids])
        input_ids[number, : len(ids)] = ids
        labels[number, len(row.prompt_ids) : len(ids)] = ids[len(row.prompt_ids) :]
        attention_mask[number, : len(ids)] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def pack(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Any]:
    """Rows end to end as [1, T]; positions start again at each, which keeps attention inside it.

    transformers builds the block-diagonal mask from the positions (flash attention: the sequence
    lengths), as no attention mask is given.
    """
    import torch

    if not rows:
        rows = [TokenRow(id="", prompt_ids=(pad_id, pad_id), response_ids=())]
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    for row in rows:
        ids += [*row.prompt_ids, *row.response_ids]
        # The first token of a row is never a target: it would be predicted from the row before.
        visible = [IGNORED] * len(row.prompt_ids) + list(row.response_ids)
        labels += [IGNORED, *visible[1:]]
        positions += range(row.num_tokens())
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
    }


def training_arguments(
    config_class: Any,
    recipe: Optimisation,
    *,
    learning_rate: float,
    num_steps: int,
    seed: int,
    directory: Path,
    use_cpu: bool,
    **options: Any,
) -> Any:
    """The TRL config of a recipe; what TRL would choose otherwise (bf16, logs) is all said."""
    return config_class(
        output_dir=str(directory),
        max_steps=num_steps,
        learning_rate=learning_rate,
        lr_scheduler_type=_SCHEDULES[recipe.schedule],
        warmup_steps=math.ceil(recipe.warmup_ratio * num_steps),
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.adam_beta1,
        adam_beta2=recipe.adam_beta2,
        adam_epsilon=recipe.adam_epsilon,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        use_cpu=use_cpu,
        seed=seed,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        **options,
    )


def sft_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRow],
    recipe: SftRecipe,
    *,
    num_steps: int,
    seed: int,
    directory: Path,
    use_cpu: bool,
) -> Any:
    """TRL's SFTTrainer with planned batches and exact resume; call `follow`, then `train`.

    The loss is TRL's: negative log-likelihood of the response tokens, summed over the step and
    divided by their number, computed in chunks without the full logits.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class ExactSftTrainer(ExactTraining, SFTTrainer):  # type: ignore[misc]
        pass

    arguments = training_arguments(
        SFTConfig,
        recipe,
        learning_rate=recipe.learning_rate,
        num_steps=num_steps,
        seed=seed,
        directory=directory,
        use_cpu=use_cpu,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    # The trainer looks at one row to learn the kind of data; batches come from `follow`.
    first = rows[0]
    sample = {"input_ids": [[*first.prompt_ids, *first.response_ids]]}
    sample["labels"] = sample["input_ids"]
    return ExactSftTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(sample),
        processing_class=tokenizer,
    )
