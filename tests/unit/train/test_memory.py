"""The memory plan, held to transformers' own counts and to what autograd really keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from still_core.errors import ConfigError
from still_core.train.memory import GIB, KNOWN_MODELS, Shape, kept_bytes, plan_memory
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources


def qwen(tied: bool = True, **changes: int) -> Qwen2Config:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    return Qwen2Config(**{**sizes, **changes}, tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 8}, {"num_hidden_layers": 1}])
def test_parameters_equal_those_of_the_model(changes: dict[str, int], tied: bool) -> None:
    config = qwen(tied, **changes)
    model = Qwen2ForCausalLM(config)
    assert Shape.of(config.to_dict()).parameters() == sum(p.numel() for p in model.parameters())


def test_the_32b_model_has_the_published_number_of_parameters() -> None:
    shape = Shape.of(KNOWN_MODELS["Qwen/Qwen2.5-32B-Instruct"])
    assert shape.parameters() == 32_763_876_352


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "element"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("changes", [{}, {"hidden_size": 128, "num_key_value_heads": 8}])
def test_kept_activations_are_within_5_percent_of_what_autograd_saves(
    changes: dict[str, int], dtype: torch.dtype, element: int, checkpointing: bool
) -> None:
    config = qwen(**changes)
    model = Qwen2ForCausalLM(config).to(dtype).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    tokens = 512
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.randint(0, 64, (1, tokens)), use_cache=False)
    measured = sum(size for size, _ in saved.values()) / tokens
    assert kept_bytes(Shape.of(config.to_dict()), element, checkpointing) == pytest.approx(
        measured, rel=0.05
    )


def test_states_are_16_bytes_per_parameter_shared_by_the_ranks() -> None:
    one = plan_memory("Qwen/Qwen2.5-7B-Instruct", SftRecipe(), TrainResources(num_ranks=1))
    eight = plan_memory("Qwen/Qwen2.5-7B-Instruct", SftRecipe(), TrainResources(num_ranks=8))
    states = one.weights + one.gradients + one.optimiser
    assert states == 16 * one.parameters
    assert eight.weights + eight.gradients + eight.optimiser == pytest.approx(states / 8)


def test_the_32b_recipe_fits_32_gpus_of_80_gb_and_not_8() -> None:
    def total(ranks: int) -> float:
        resources = TrainResources(num_ranks=ranks, gpus_per_rank=1)
        return plan_memory("Qwen/Qwen2.5-32B-Instruct", SftRecipe(), resources).total / GIB

    assert total(32) < 74
    assert total(8) > 80


def test_gpu_hours_follow_from_the_work() -> None:
    # The input embeddings take part in no product; causal attention: 6 x layers x width x length.
    plan = plan_memory(
        "Qwen/Qwen2.5-32B-Instruct",
        SftRecipe(epochs=1),
        TrainResources(num_ranks=32),
        num_rows=3_900,
        mean_tokens=8_000,
        mfu=0.5,
    )
    work = 3_900 * 8_000 * (6 * (32_763_876_352 - 152_064 * 5_120) + 6 * 64 * 5_120 * 8_000)
    assert plan.gpu_hours == pytest.approx(work / (989e12 * 0.5) / 3600, rel=1e-3)
    assert "GPU-hours at 50% MFU" in plan.sentence()


def test_a_pair_of_dpo_is_two_rows_of_a_forward_and_one_more_forward_of_the_reference() -> None:
    resources = TrainResources(num_ranks=32, micro_batch_tokens=1)
    sft, dpo = (
        plan_memory(
            "Qwen/Qwen2.5-32B-Instruct", recipe, resources, num_rows=1_000, mean_tokens=4_000
        )
        for recipe in (SftRecipe(epochs=1, max_length=8_000), DpoRecipe(epochs=1, max_length=4_000))
    )
    assert dpo.total == sft.total
    assert dpo.gpu_hours is not None
    assert sft.gpu_hours is not None
    assert dpo.gpu_hours == pytest.approx(sft.gpu_hours * 2 * 4 / 3)


def test_an_unknown_model_or_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match="no shape known"):
        plan_memory("somebody/else", SftRecipe(), TrainResources())
    with pytest.raises(ConfigError, match="architecture"):
        plan_memory({"model_type": "mamba"}, SftRecipe(), TrainResources())
    with pytest.raises(ConfigError, match="intermediate_size"):
        plan_memory(
            {"hidden_size": 64, "num_attention_heads": 2, "vocab_size": 9},
            SftRecipe(),
            TrainResources(),
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is no size: got 0, expected a whole"),
        ({"num_attention_heads": None}, "num_attention_heads is no size: got 'null', expected"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is no size: got 0, expected"),
        ({"hidden_size": "abc"}, "hidden_size is no size: got 'abc', expected"),
        ({"vocab_size": 9.5}, "vocab_size is no size: got 9.5, expected"),
        ({"num_hidden_layers": True}, "num_hidden_layers is no size: got True, expected"),
        ({"intermediate_size": [1]}, r"intermediate_size is no size: got \[1\], expected"),
        ({"model_type": ["qwen2"]}, r"no memory plan for .* got \['qwen2'\], expected qwen2 or"),
    ],
)
def test_a_config_that_nothing_can_be_planned_from_is_refused_by_field(
    changes: dict[str, object], said: str
) -> None:
    config = {**KNOWN_MODELS["Qwen/Qwen2.5-7B-Instruct"], "num_key_value_heads": None}
    Shape.of(config)
    with pytest.raises(ConfigError, match=said):
        plan_memory({**config, **changes}, SftRecipe(), TrainResources())


def test_a_config_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no model config: got \[1\], expected a mapping"):
        Shape.of([1])  # type: ignore[arg-type]


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; import still_core.train;"
        "sys.exit(bool({'torch', 'ray', 'trl', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
