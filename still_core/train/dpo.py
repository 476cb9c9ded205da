"""Direct preference optimisation in four variants: whole response or thought alone, with or
without an NLL term on the chosen response (STILL-2 section 2.3, Table 4).

pairs -> tokens and target masks -> reference log-probs, once -> TRL's DPOTrainer -> model folder

The reference is the start checkpoint (M_1 in the paper). Its log-probs are computed before the
first step and published, so no second model sits in memory and a resumed job compares with the
start weights. The target mask is TRL's `completion_mask`: it selects tokens in the policy's and the
reference's log-probs and in the NLL term alike, in chosen and rejected responses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from still_core.train.batches import cut_micro_batches, plan_batches
from still_core.train.exact import ExactTraining, Schedule
from still_core.train.recipe import DpoRecipe
from still_core.train.rows import PairRow
from still_core.train.sft import Place, training_arguments

Reference = Mapping[str, tuple[float, float]]
"""Pair id -> sum of the reference's log-probs over the target tokens of (chosen, rejected)."""


def dpo_schedule(
    rows: Sequence[PairRow],
    recipe: DpoRecipe,
    *,
    seed: int,
    place: Place,
    pad_id: int,
    reference: Reference,
) -> Schedule:
    """All steps of this rank.

    Args:
        rows: pairs with distinct ids.
        recipe: batch size, epochs, variant.
        seed: of the shuffles.
        place: this rank.
        pad_id: fills short rows.
        reference: filled by `reference_logprobs` before the first batch is made.
    """
    lengths = [row.num_tokens() for row in rows]
    steps = plan_batches(
        lengths,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=seed,
        group_by_length=False,
    )
    # A pair is two rows of a forward. TRL's NLL term is a mean over a forward's tokens: with one
    # pair in each, every pair weighs the same whatever the ranks and the cut.
    max_tokens = 1 if recipe.sft_weight else place.resources.micro_batch_tokens // 2
    cut = [
        cut_micro_batches(
            step, lengths, num_ranks=place.num_ranks, max_tokens=max_tokens, padded=True
        )[place.rank]
        for step in steps
    ]
    return Schedule(
        steps=cut,
        # An empty micro-batch joins the collectives with the first pair, at weight 0.
        collate=lambda indices: collate_pairs(
            [rows[i] for i in indices or (0,)], pad_id, reference
        ),
        tokens=[
            sum(
                2 * len(rows[row].prompt_ids)
                + len(rows[row].chosen_ids)
                + len(rows[row].rejected_ids)
                for row in step
            )
            for step in steps
        ],
        num_rows=[len(step) for step in steps],
        num_ranks=place.num_ranks,
        checkpoint_every=place.resources.checkpoint_every,
    )


def collate_pairs(
    rows: Sequence[PairRow], pad_id: int, reference: Reference | None = None
) -> dict[str, Any]:
    """Pairs as DPOTrainer takes them: [2B, T], all chosen above all rejected, right-padded."""
    import torch

    sides = [(row.prompt_ids, row.chosen_ids, row.chosen_mask) for row in rows]
    sides += [(row.prompt_ids, row.rejected_ids, row.rejected_mask) for row in rows]
    width = max(len(prompt) + len(ids) for prompt, ids, _ in sides)
    input_ids = torch.full((len(sides), width), pad_id)
    attention_mask = torch.zeros((len(sides), width), dtype=torch.long)
    completion_mask = torch.zeros((len(sides), width), dtype=torch.long)
    for number, (prompt, ids, mask) in enumerate(sides):
        end = len(prompt) + len(ids)
        input_ids[number, :end] = torch.tensor([*prompt, *ids])
        attention_mask[number, :end] = 1
        completion_mask[number, len(prompt) : end] = torch.tensor(mask)
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "completion_mask": completion_mask,
    }
    if reference is not None:
        batch["ref_chosen_logps"] = torch.tensor([reference[row.id][0] for row in rows])
        batch["ref_rejected_logps"] = torch.tensor([reference[row.id][1] for row in rows])
    return batch


def dpo_trainer(
    model: Any,
    tokenizer: Any,
    recipe: DpoRecipe,
    *,
    num_steps: int,
    seed: int,
    directory: Path,
    use_cpu: bool,
) -> Any:
    """TRL's DPOTrainer with planned batches, precomputed reference and exact resume."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class ExactDpoTrainer(ExactTraining, DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    weighted = recipe.sft_weight > 0
    arguments = training_arguments(
        DPOConfig,
        recipe,
        learning_rate=recipe.learning_rate,
        num_steps=num_steps,
        seed=seed,
        directory=directory,
        use_cpu=use_cpu,
        max_length=None,
        beta=recipe.beta,
        loss_type=["sigmoid", "sft"] if weighted else ["sigmoid"],
        loss_weights=[1.0, recipe.sft_weight] if weighted else [1.0],
    )
    trainer = ExactDpoTrainer(
        model=model,
        # A second name of the same weights, dropped below: without it TRL loads a whole reference
        # model, or hashes the weights, which it can not do for sharded ones.
        ref_model=_same_model(model),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt_ids": [[0]]}),
        processing_class=tokenizer,
    )
    trainer.ref_model = None
    trainer.precompute_ref_logps = True
    return trainer


def _same_model(model: Any) -> Any:
    """Another module object with the very same parameters (`copy.copy` fails on FSDP2 modules)."""
    twin = object.__new__(type(model))
    twin.__dict__.update(model.__dict__)
    return twin


def reference_logprobs(
    trainer: Any,
    rows: Sequence[PairRow],
    *,
    place: Place,
    pad_id: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, tuple[float, float]]:
    """Log-probs of the start weights, over the target tokens of every pair (collective).

    Each rank does its share of the pairs and all get all of it. `tell` hears of every forward:
    how many this rank has done, of how many.
    """
    import torch
    import torch.distributed.fsdp

    lengths = [row.num_tokens() for row in rows]
    max_tokens = place.resources.micro_batch_tokens // 2
    batches = cut_micro_batches(
        range(len(rows)), lengths, num_ranks=place.num_ranks, max_tokens=max_tokens, padded=True
    )[place.rank]
    found: dict[str, tuple[float, float]] = {}
    trainer.model.eval()
    for number, batch in enumerate(batches, start=1):
        chosen_rows = [rows[i] for i in batch]
        inputs = trainer._prepare_inputs(collate_pairs(chosen_rows or rows[:1], pad_id))
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, inputs)
        for row, *sums in zip(chosen_rows, chosen.tolist(), rejected.tolist(), strict=False):
            found[row.id] = (sums[0], sums[1])
        tell(number, len(batches))
    if place.num_ranks == 1:
        return found
    # FSDP2 leaves the last group of weights gathered after a forward; the optimiser, which is made
    # next, must see the shards.
    for module in trainer.model.modules():
        if isinstance(module, torch.distributed.fsdp.FSDPModule):
            module.reshard()
    shares: list[Any] = [None] * place.num_ranks
    torch.distributed.all_gather_object(shares, found)
    return {name: sums for share in shares for name, sums in share.items()}
