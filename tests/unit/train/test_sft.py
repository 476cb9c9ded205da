"""SFT batches and trainer, held to transformers' loss and to TRL's unmodified SFTTrainer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from still_core.errors import TrainingError
from still_core.train.exact import MAX_SKIPPED_IN_A_ROW
from still_core.train.recipe import SftRecipe, TrainResources
from still_core.train.rows import TokenRow
from still_core.train.sft import IGNORED, Place, pack, pad, sft_schedule, sft_trainer


def some_rows(count: int, seed: int = 0) -> list[TokenRow]:
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(7, 100) for _ in range(rng.randint(low, high)))

    return [
        TokenRow(id=str(i), prompt_ids=ids(2, 20), response_ids=(*ids(1, 40), 2))
        for i in range(count)
    ]


class Quiet:
    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None: ...

    def on_checkpoint(self, step: int, staging: Any) -> None: ...


def place(**changes: int) -> Place:
    resources = TrainResources(threads_per_rank=1, **{"micro_batch_tokens": 300, **changes})
    return Place(rank=0, num_ranks=1, resources=resources)


def recipe(**changes: Any) -> SftRecipe:
    fields = {
        "dtype": "float32",
        "gradient_checkpointing": False,
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 1e-3,
    }
    return SftRecipe(**{**fields, **changes})


def train(
    model_dir: Path, rows: list[TokenRow], chosen: SftRecipe, tmp: Path, **resources: int
) -> tuple[Any, list[dict[str, float]]]:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    schedule = sft_schedule(rows, chosen, seed=3, place=place(**resources), pad_id=0)
    trainer = sft_trainer(
        model,
        tokenizer,
        rows,
        chosen,
        num_steps=len(schedule.steps),
        seed=3,
        directory=tmp,
        use_cpu=True,
    )
    trainer.follow(schedule, Quiet(), 0)
    trainer.train()
    return model, trainer.metrics


def largest_difference(a: Any, b: Any) -> float:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)


def test_padding_and_prompts_are_no_targets() -> None:
    rows = [
        TokenRow(id="a", prompt_ids=(7, 8), response_ids=(9, 2)),
        TokenRow(id="b", prompt_ids=(7,), response_ids=(2,)),
    ]
    batch = pad(rows, pad_id=0)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 2], [7, 2, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 9, 2], [IGNORED, 2, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_packed_rows_restart_their_positions_and_never_predict_across_a_border() -> None:
    rows = [
        TokenRow(id="a", prompt_ids=(7, 8), response_ids=(9, 2)),
        TokenRow(id="b", prompt_ids=(), response_ids=(5, 2)),
    ]
    batch = pack(rows, pad_id=0)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 2, 5, 2]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 9, 2, IGNORED, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]


def test_packed_attention_stays_inside_a_row(tiny_model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    first, second, other = some_rows(3)
    length = second.num_tokens()
    with torch.no_grad():
        after_first = model(**inputs(pack([first, second], 0))).logits[0, -length:]
        after_other = model(**inputs(pack([other, second], 0))).logits[0, -length:]
        alone = model(**inputs(pack([second], 0))).logits[0]
    assert torch.allclose(after_first, after_other, atol=1e-5)
    assert torch.allclose(after_first, alone, atol=1e-5)


def inputs(batch: dict[str, Any]) -> dict[str, Any]:
    # With a key-value cache, transformers takes the row for one sequence; training has none.
    return {"use_cache": False} | {k: v for k, v in batch.items() if k != "labels"}


def test_the_trainer_equals_trls_own_on_the_same_batches(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    rows = some_rows(32)
    chosen = recipe(epochs=1, group_by_length=False, schedule="cosine")
    ours, metrics = train(tiny_model_dir, rows, chosen, tmp_path / "ours", micro_batch_tokens=9999)
    order = [
        row
        for step in sft_schedule(rows, chosen, seed=3, place=place(), pad_id=0).steps
        for group in step
        for row in group
    ]
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    table = [
        {
            "input_ids": [*rows[i].prompt_ids, *rows[i].response_ids],
            "completion_mask": [0] * len(rows[i].prompt_ids) + [1] * len(rows[i].response_ids),
        }
        for i in order
    ]
    arguments = SFTConfig(
        output_dir=str(tmp_path / "theirs"),
        per_device_train_batch_size=8,
        num_train_epochs=1,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        weight_decay=0.1,
        completion_only_loss=True,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        train_sampling_strategy="sequential",
    )
    trainer = SFTTrainer(
        model=theirs,
        args=arguments,
        train_dataset=Dataset.from_list(table),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [row["loss"] for row in metrics] == pytest.approx(expected, abs=1e-5)
    assert largest_difference(ours, theirs) < 1e-5


@pytest.fixture(scope="module")
def plainly_trained(
    tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[dict[str, Any]]]:
    return train(tiny_model_dir, some_rows(24), recipe(), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("changes", "resources"),
    [
        ({"packing": True}, {}),
        ({"gradient_checkpointing": True}, {}),
        ({}, {"micro_batch_tokens": 61}),
    ],
)
def test_layout_options_change_nothing_but_rounding(
    plainly_trained: tuple[Any, list[dict[str, Any]]],
    tiny_model_dir: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    resources: dict[str, int],
) -> None:
    plain, curve = plainly_trained
    other, again = train(tiny_model_dir, some_rows(24), recipe(**changes), tmp_path, **resources)
    for one, row in zip(curve, again, strict=True):
        assert row == pytest.approx(one, abs=1e-4, rel=1e-4)
    assert largest_difference(plain, other) < 1e-4


@pytest.mark.parametrize(
    ("schedule", "after_warmup"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("linear", [1.0, 2 / 3, 1 / 3]),
        ("cosine", [1.0, 0.75, 0.25]),
    ],
)
def test_the_rate_rises_from_0_and_then_follows_the_schedule(
    tiny_model_dir: Path, tmp_path: Path, schedule: str, after_warmup: list[float]
) -> None:
    chosen = recipe(schedule=schedule, warmup_ratio=0.5, learning_rate=1e-3)
    _, metrics = train(tiny_model_dir, some_rows(24), chosen, tmp_path)
    shares = [row["learning_rate"] / 1e-3 for row in metrics]
    assert shares == pytest.approx([0.0, 1 / 3, 2 / 3, *after_warmup])


def test_a_step_with_a_gradient_that_is_not_finite_is_left_out_and_counted(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows(24)
    poisoned_step = 3

    def poison(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == poisoned_step - 1 else loss

    compute_loss = SFTTrainer.compute_loss
    monkeypatch.setattr(SFTTrainer, "compute_loss", poison)
    model, metrics = train(tiny_model_dir, rows, recipe(), tmp_path)
    assert [row["skipped"] for row in metrics] == [0, 0, 1, 0, 0, 0]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_run_without_finite_gradients_is_given_up(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_loss = SFTTrainer.compute_loss

    def poison(self: Any, *args: Any, **kwargs: Any) -> Any:
        return compute_loss(self, *args, **kwargs) * float("nan")

    monkeypatch.setattr(SFTTrainer, "compute_loss", poison)
    with pytest.raises(TrainingError, match=f"{MAX_SKIPPED_IN_A_ROW} steps"):
        train(tiny_model_dir, some_rows(24), recipe(epochs=9), tmp_path)
