"""DPO: the loss by hand, the token masks, the reference, and invariance to the layout."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from still_core.train.dpo import (
    collate_pairs,
    dpo_schedule,
    dpo_trainer,
    reference_logprobs,
)
from still_core.train.recipe import DpoRecipe, DpoTarget, TrainResources
from still_core.train.rows import PairRow
from still_core.train.sft import Place

PLACE = Place(rank=0, num_ranks=1, resources=TrainResources(micro_batch_tokens=400))


def some_pairs(count: int, *, thought_only: bool, seed: int = 0) -> list[PairRow]:
    """Pairs whose last third of each response is the solution."""
    rng = random.Random(seed)

    def side() -> tuple[tuple[int, ...], tuple[int, ...]]:
        thought, solution = rng.randint(3, 20), rng.randint(1, 8)
        ids = tuple(rng.randrange(7, 100) for _ in range(thought + solution))
        return ids, (1,) * thought + (int(not thought_only),) * solution

    rows = []
    for number in range(count):
        (chosen, chosen_mask), (rejected, rejected_mask) = side(), side()
        rows.append(
            PairRow(
                id=str(number),
                prompt_ids=tuple(rng.randrange(7, 100) for _ in range(rng.randint(2, 9))),
                chosen_ids=chosen,
                chosen_mask=chosen_mask,
                rejected_ids=rejected,
                rejected_mask=rejected_mask,
            )
        )
    return rows


def recipe(**changes: Any) -> DpoRecipe:
    fields = {
        "dtype": "float32",
        "gradient_checkpointing": False,
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_ratio": 0.0,
    }
    return DpoRecipe(**{**fields, **changes})


class Quiet:
    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None: ...

    def on_checkpoint(self, step: int, staging: Any) -> None: ...


def train(
    model_dir: Path,
    rows: list[PairRow],
    chosen: DpoRecipe,
    tmp: Path,
    place: Place = PLACE,
    num_empty: int = 0,
) -> tuple[Any, list[dict[str, float]], dict[str, tuple[float, float]]]:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    reference: dict[str, tuple[float, float]] = {}
    schedule = dpo_schedule(rows, chosen, seed=1, place=place, pad_id=0, reference=reference)
    schedule.steps = [[*step, *[[]] * num_empty] for step in schedule.steps]
    trainer = dpo_trainer(
        model,
        AutoTokenizer.from_pretrained(model_dir),
        chosen,
        num_steps=len(schedule.steps),
        seed=1,
        directory=tmp,
        use_cpu=True,
    )
    reference.update(reference_logprobs(trainer, rows, place=place, pad_id=0))
    trainer.follow(schedule, Quiet(), 0)
    trainer.train()
    return model, trainer.metrics, reference


def target_logprob(model: Any, row: PairRow, side: str) -> torch.Tensor:
    """Sum of log-probs over the target tokens, from transformers' full logits."""
    ids = getattr(row, f"{side}_ids")
    mask = torch.tensor(getattr(row, f"{side}_mask"))
    tokens = torch.tensor([[*row.prompt_ids, *ids]])
    logprobs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
    picked = logprobs.gather(1, tokens[0, 1:, None])[:, 0]
    return (picked[-len(ids) :] * mask).sum()


@pytest.mark.parametrize("sft_weight", [0.0, 0.3])
@pytest.mark.parametrize("target", list(DpoTarget))
def test_the_first_loss_and_gradient_are_those_of_the_formula(
    tiny_model_dir: Path, tmp_path: Path, target: DpoTarget, sft_weight: float
) -> None:
    rows = some_pairs(8, thought_only=target is DpoTarget.THOUGHT)
    chosen = recipe(target=target, sft_weight=sft_weight, epochs=1, beta=0.2)
    _, metrics, reference = train(tiny_model_dir, rows, chosen, tmp_path)

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    total = torch.tensor(0.0)
    for row in rows:
        up, down = target_logprob(model, row, "chosen"), target_logprob(model, row, "rejected")
        assert reference[row.id] == pytest.approx((up.item(), down.item()), abs=1e-3)
        margin = (up - up.detach()) - (down - down.detach())
        total = total - torch.nn.functional.logsigmoid(0.2 * margin)
        total = total - sft_weight * up / sum(row.chosen_mask)
    loss = total / len(rows)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert metrics[0]["loss"] == pytest.approx(loss.item(), abs=1e-4)
    if not sft_weight:
        assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)


def test_preferences_are_learnt(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = some_pairs(16, thought_only=True)
    _, metrics, _ = train(tiny_model_dir, rows, recipe(epochs=6), tmp_path)
    assert metrics[-1]["rewards/accuracies"] == 1.0
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]


def test_a_constant_rate_rises_from_0_first(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = some_pairs(16, thought_only=True)
    chosen = recipe(schedule="constant", warmup_ratio=0.5, learning_rate=1e-4)
    _, metrics, _ = train(tiny_model_dir, rows, chosen, tmp_path)
    shares = [row["learning_rate"] / 1e-4 for row in metrics]
    assert shares == pytest.approx([0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("sft_weight", [0.0, 0.3])
def test_solutions_do_not_matter_to_thought_only_training(
    tiny_model_dir: Path, tmp_path: Path, sft_weight: float
) -> None:
    rows = some_pairs(16, thought_only=True)
    swapped = [
        replace(
            row,
            chosen_ids=scramble(row.chosen_ids, row.chosen_mask),
            rejected_ids=scramble(row.rejected_ids, row.rejected_mask),
        )
        for row in rows
    ]
    chosen = recipe(sft_weight=sft_weight)
    model, curve, reference = train(tiny_model_dir, rows, chosen, tmp_path / "a")
    other, again, other_reference = train(tiny_model_dir, swapped, chosen, tmp_path / "b")
    assert reference == other_reference
    assert [row["loss"] for row in curve] == [row["loss"] for row in again]
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_solutions_matter_to_training_on_whole_responses(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    whole = some_pairs(16, thought_only=False)
    _, seen, _ = train(tiny_model_dir, whole, recipe(target="response"), tmp_path / "c")
    scrambled = [replace(row, chosen_ids=scramble(row.chosen_ids, (0,) * 99)) for row in whole]
    _, differs, _ = train(tiny_model_dir, scrambled, recipe(target="response"), tmp_path / "d")
    assert seen[-1]["loss"] != differs[-1]["loss"]


def scramble(ids: tuple[int, ...], mask: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i if m else 7 + (i + 13) % 90 for i, m in zip(ids, mask, strict=False))


@pytest.mark.parametrize("sft_weight", [0.0, 0.3])
def test_the_cut_into_micro_batches_changes_nothing_but_rounding(
    tiny_model_dir: Path, tmp_path: Path, sft_weight: float
) -> None:
    rows = some_pairs(20, thought_only=True)
    chosen = recipe(sft_weight=sft_weight, learning_rate=1e-3)
    _, wide, _ = train(tiny_model_dir, rows, chosen, tmp_path / "a")
    narrow_place = replace(PLACE, resources=TrainResources(micro_batch_tokens=100))
    _, narrow, _ = train(tiny_model_dir, rows, chosen, tmp_path / "b", narrow_place)
    # Before its first step the policy is the reference: which reward is higher is rounding.
    for first in (wide[0], narrow[0]):
        del first["rewards/accuracies"]
    for one, other in zip(wide, narrow, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_an_empty_micro_batch_counts_for_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows, chosen = some_pairs(20, thought_only=True), recipe(learning_rate=1e-3)
    _, plain, _ = train(tiny_model_dir, rows, chosen, tmp_path / "a")
    _, padded, _ = train(tiny_model_dir, rows, chosen, tmp_path / "b", num_empty=2)
    assert any(row["token_accuracy"] for row in plain)
    assert padded == plain


def test_a_batch_holds_all_chosen_above_all_rejected() -> None:
    row = PairRow(
        id="a",
        prompt_ids=(7,),
        chosen_ids=(8, 9),
        chosen_mask=(1, 0),
        rejected_ids=(10,),
        rejected_mask=(1,),
    )
    batch = collate_pairs([row], 0, {"a": (-1.0, -2.0)})
    assert batch["input_ids"].tolist() == [[7, 8, 9], [7, 10, 0]]
    assert batch["completion_mask"].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["ref_chosen_logps"].tolist() == [-1.0]
    assert batch["ref_rejected_logps"].tolist() == [-2.0]
