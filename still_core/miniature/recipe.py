"""Recipe sections of the miniature: light, no torch."""

from __future__ import annotations

from pydantic import Field

from still_core.recipes.section import Section


class SchoolingRecipe(Section):
    """How M_0 is made: shape of the model and length of its schooling."""

    hidden_size: int = Field(
        default=128, ge=16, le=1024, description="Width of the residual stream."
    )
    num_layers: int = Field(default=4, ge=1, le=48)
    num_heads: int = Field(default=4, ge=1, le=64)
    intermediate_size: int = Field(default=512, ge=16, le=4096, description="Width of the MLP.")
    num_steps: int = Field(default=2600, ge=1, description="Optimiser steps.")
    tokens_per_batch: int = Field(
        default=1536, ge=256, description="Tokens of one batch, padding included."
    )
    batches_per_step: int = Field(default=3, ge=1, description="Batches whose gradients add up.")
    muon_learning_rate: float = Field(
        default=3e-3,
        gt=0,
        le=1,
        description="Peak rate of the matrices, trained by Muon at AdamW's scale.",
    )
    learning_rate: float = Field(
        default=2e-3,
        gt=0,
        le=1,
        description="Peak rate of the embedding, biases and norms (AdamW).",
    )
    warmup_ratio: float = Field(
        default=0.03, ge=0, lt=1, description="Share of steps of linear warm-up."
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    seed: int = Field(default=0, ge=0)


class FaultRates(Section):
    """How often a scripted teacher errs, as real ones do: share of responses per kind of fault.

    A response has at most one fault; duplicates are further rows beside the first.
    """

    wrong: float = Field(
        default=0.06, ge=0, le=1, description="A slip in one step, carried to the answer."
    )
    loop: float = Field(default=0.03, ge=0, le=1, description="One step said over and over.")
    mixed_script: float = Field(
        default=0.03, ge=0, le=1, description="Chinese words inside the thought."
    )
    gibberish: float = Field(default=0.02, ge=0, le=1, description="Runs of random characters.")
    truncated: float = Field(default=0.03, ge=0, le=1, description="Cut inside the thought.")
    missing_token: float = Field(
        default=0.02, ge=0, le=1, description="No end of thought (separate), no answer (stream)."
    )
    exact_duplicate: float = Field(default=0.02, ge=0, le=1, description="The same row once more.")
    near_duplicate: float = Field(
        default=0.02, ge=0, le=1, description="The same row with one mark more."
    )
