"""Memory per GPU and GPU-hours of a training job, before anything is launched. No torch.

model config + recipe + resources -> parameters -> bytes by part -> GPU-hours

Assumptions, each checked by a test or named as an estimate:

1. Weights, gradients and both Adam moments are float32 and sharded evenly over the ranks (FSDP2,
   `load_model`): 16 bytes per parameter / ranks. Checked: parameter counts equal transformers'.
2. FSDP2 gathers one decoder layer while the next is fetched: two layers in the compute type, plus
   the last layer's full gradient in that type and its float32 copy in reduction; the head with the
   final norm stays gathered. One rank gathers nothing. Estimate.
3. What autograd keeps of one decoder layer per token, with fused attention (`layer_bytes`), where
   parameters have the compute type, as FSDP2 gathers them (autocast on one rank keeps about a
   quarter more). Checked within 5 % against the tensors that autograd saves on a miniature.
4. Activation checkpointing keeps each layer's input and the insides of one layer; without it, the
   insides of all layers. Checked like 3.
5. The loss is TRL's chunked one: a float32 tile of 4,096 tokens x 32,768 entries of the vocabulary,
   float32 gradients of the head and of the last hidden states; never tokens x vocabulary.
6. Reserve: 2 GiB for the driver, kernels and communication buffers, and 8 % of the rest for
   fragmentation. Estimate.
7. A pair of DPO is two rows of one forward. Its reference is not a second model: the start weights'
   log-probs are computed before the first step, one forward of every pair.
8. GPU-hours: 6 FLOPs per parameter in a matrix product and token, plus causal attention, at the
   stated model FLOP utilisation (MFU); recomputation by checkpointing lowers MFU and is not counted
   as work. Peak: 989 TFLOP/s (H100/H200, dense bfloat16).
9. Rows of one forward are equally long. Where they are not, attention has a mask of the length's
   square and repeats keys and values for all heads. With checkpointing that is one layer's: about
   2 GiB for a pair of DPO of 16,384 tokens each, 3 GiB of 20,000, which the reserve has room for.
   Without it, every layer's: the plan is too low then. Computed, not measured on a GPU.

`still plan` has no data yet. It adds what it prints with its figures (`flows/planning.py`): rows
and responses of a quarter of their longest length on average, as many rows as the recipe asks for,
and in exploration every attempt at every problem, at 1,000 tokens/s per GPU. Estimates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from still_core.errors import ConfigError, explain
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources

GIB = 2**30
PEAK_FLOPS = 989e12
"""Of one H100 or H200 SXM, bfloat16 without sparsity."""
MFU = 0.40
"""Our choice: the low end of 40-50 % that 32B SFT at 16-32k tokens should reach on 8 x H100."""
TILE_TOKENS, TILE_VOCABULARY = 4_096, 32_768
RESERVE_BYTES, RESERVE_SHARE = 2 * GIB, 0.08

_QWEN25 = {"model_type": "qwen2", "vocab_size": 152_064, "tie_word_embeddings": False}
KNOWN_MODELS: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2.5-32B-Instruct": {
        **_QWEN25,
        "hidden_size": 5_120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **_QWEN25,
        "hidden_size": 3_584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
"""Shapes of the papers' models, so that a plan needs no download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a Qwen2- or Llama-shaped decoder."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    tied: bool
    attention_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From the fields of a `config.json`.

        Raises:
            ConfigError: a field is missing or no size, or the model is no dense Qwen2 or Llama.
        """
        # It may come out of a file that somebody wrote by hand.
        if not isinstance(config, Mapping):
            raise ConfigError(
                explain("no model config", got=config, expected="a mapping of field to value")
            )
        kind = config.get("model_type", "qwen2")
        if kind not in ("qwen2", "llama"):
            raise ConfigError(
                explain("no memory plan for this architecture", got=kind, expected="qwen2 or llama")
            )
        heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
        return cls(
            vocabulary=_size(config, "vocab_size"),
            hidden=hidden,
            intermediate=_size(config, "intermediate_size"),
            layers=_size(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=_size(config, "num_key_value_heads", heads),
            head_size=_size(config, "head_dim", max(hidden // heads, 1)),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=kind == "qwen2",
        )

    def layer_parameters(self) -> int:
        """Of one decoder layer."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = self.hidden * (2 * queries + 2 * keys)
        attention += queries + 2 * keys if self.attention_bias else 0
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    def parameters(self) -> int:
        """Of the whole model, tied weights once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer_parameters() + embeddings + self.hidden

    def layer_bytes(self, element: int) -> int:
        """Bytes that autograd keeps of one layer per token; `element` bytes per number.

        Two RMS norms (a float32 copy of the input, the normalised and the scaled values), fused
        attention (queries, keys, values, output and its contiguous copy), SwiGLU (gate, its
        activation, up and their product).
        """
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        norms = 2 * (4 + 2 * element) * self.hidden
        attention = element * (2 * queries + 2 * keys)
        return norms + attention + 4 * element * self.intermediate

    def flops_per_token(self, length: int) -> float:
        """Of forward and backward at the mean position of a row of `length` tokens."""
        head = self.vocabulary * self.hidden
        products = self.layers * (self.layer_parameters() - 2 * self.hidden) + head
        causal = 6.0 * self.layers * self.heads * self.head_size * length
        return 6.0 * products + causal


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What one rank holds at the peak of a step, in bytes, and what the job costs."""

    parameters: int
    num_ranks: int
    weights: int
    gradients: int
    optimiser: int
    gathered: int
    activations: int
    logits: int
    reserve: int
    gpu_hours: float | None
    """None where the size of the data was not given."""
    mfu: float

    @property
    def total(self) -> int:
        """Bytes per GPU."""
        parts = (self.weights, self.gradients, self.optimiser, self.gathered)
        return sum(parts) + self.activations + self.logits + self.reserve

    def to_rows(self) -> list[dict[str, object]]:
        """Parts as table rows, in GiB."""
        names = (
            "weights",
            "gradients",
            "optimiser",
            "gathered",
            "activations",
            "logits",
            "reserve",
            "total",
        )
        return [{"part": name, "gib": round(getattr(self, name) / GIB, 2)} for name in names]

    def sentence(self) -> str:
        """One line for a terminal."""
        text = (
            f"{self.parameters / 1e9:.2f}B parameters on {self.num_ranks} ranks: "
            f"{self.total / GIB:.1f} GiB per rank"
        )
        if self.gpu_hours is not None:
            text += f", {self.gpu_hours:,.0f} GPU-hours at {self.mfu:.0%} MFU"
        return text


def plan_memory(
    model_config: Mapping[str, Any] | str,
    recipe: SftRecipe | DpoRecipe,
    resources: TrainResources,
    *,
    num_rows: int | None = None,
    mean_tokens: int | None = None,
    mfu: float = MFU,
) -> MemoryPlan:
    """Bytes per GPU by part, and GPU-hours where the size of the data is given.

    Args:
        model_config: fields of the model's `config.json`, or a name in `KNOWN_MODELS`.
        recipe: SFT or DPO: precision, checkpointing, longest row, epochs.
        resources: ranks and tokens per forward; one row of `max_length`, or one pair, may exceed
            the latter.
        num_rows: demonstrations, or pairs, per epoch.
        mean_tokens: mean tokens of a demonstration or of one side of a pair, prompt included.
        mfu: share of the peak that the job is expected to reach, in (0, 1].

    Raises:
        ConfigError: unknown model name or architecture, or a field that is no size.
    """
    shape = Shape.of(_config(model_config))
    ranks, element = resources.num_ranks, 2 if recipe.dtype == "bfloat16" else 4
    shard = math.ceil(shape.parameters() / ranks)
    tokens = max(resources.micro_batch_tokens, recipe.longest_forward())
    gathered = _gathered(shape, element) if ranks > 1 else _autocast_copies(shape, element)
    activations = _activations(shape, element, tokens, recipe.gradient_checkpointing)
    logits = 4 * min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY)
    logits += 4 * shape.vocabulary * shape.hidden + 4 * tokens * shape.hidden
    parts = 16 * shard + gathered + activations + logits
    hours = None
    if num_rows is not None and mean_tokens is not None:
        work = num_rows * mean_tokens * recipe.trainings_per_row()
        hours = work * shape.flops_per_token(mean_tokens) / (PEAK_FLOPS * mfu) / 3600
    return MemoryPlan(
        parameters=shape.parameters(),
        num_ranks=ranks,
        weights=4 * shard,
        gradients=4 * shard,
        optimiser=8 * shard,
        gathered=gathered,
        activations=activations,
        logits=logits,
        reserve=RESERVE_BYTES + int(RESERVE_SHARE * parts),
        gpu_hours=hours,
        mfu=mfu,
    )


def _size(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """A size of the model; `default` where it is absent or null."""
    found = config.get(field)
    if found is None and default is not None:
        return default
    if type(found) is not int or found < 1:
        raise ConfigError(
            explain(
                f"model config: {field} is no size",
                got=("null" if field in config else "nothing") if found is None else found,
                expected="a whole number of 1 or more",
                remedy="mend config.json",
            )
        )
    return found


def _config(model: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if not isinstance(model, str):
        return model
    if model not in KNOWN_MODELS:
        raise ConfigError(
            explain(
                "no shape known for this model",
                got=model,
                expected=", ".join(KNOWN_MODELS),
                remedy="give the fields of its config.json",
            )
        )
    return KNOWN_MODELS[model]


def _gathered(shape: Shape, element: int) -> int:
    """Whole layers and head that exist beside the shards while FSDP2 computes."""
    layer, head = shape.layer_parameters(), shape.vocabulary * shape.hidden
    return (2 * element + element + 4) * layer + element * head


def _autocast_copies(shape: Shape, element: int) -> int:
    """Autocast on one rank keeps a copy of the weights in the compute type; float32 needs none."""
    return 0 if element == 4 else element * shape.parameters()


def _activations(shape: Shape, element: int, tokens: int, checkpointing: bool) -> int:
    insides = shape.layer_bytes(element) if checkpointing else 0
    # While a layer's backward runs, gradients of its widest values exist beside them.
    workspace = element * (2 * shape.intermediate + 2 * shape.hidden)
    return tokens * (kept_bytes(shape, element, checkpointing) + workspace + insides)


def kept_bytes(shape: Shape, element: int, checkpointing: bool) -> int:
    """Bytes per token that autograd keeps from the forward to the backward."""
    layers = element * shape.hidden if checkpointing else shape.layer_bytes(element)
    return shape.layers * layers + (4 + element) * shape.hidden
