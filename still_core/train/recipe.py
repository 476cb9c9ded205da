"""Recipe sections of training: SFT, DPO and the resources a job runs on. Imports pydantic only.

Defaults of SFT: learning rate 1e-5 and batch 96 from STILL-2 (arXiv:2412.09413); what the paper
leaves open (schedule, warm-up, weight decay, epochs, longest row) from the authors' STILL-3-Tool
launch script, the nearest evidence there is. Its 17 epochs are for 0.8k rows: the 32B preset, with
several thousand, sets 5, which is ours.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from still_core.recipes.section import Section


class Optimisation(Section):
    """What SFT and DPO share: AdamW, a schedule with warm-up, clipping, precision."""

    weight_decay: float = Field(
        default=0.1, ge=0.0, le=1.0, description="Not applied to norms and biases."
    )
    adam_beta1: float = Field(
        default=0.9, ge=0.0, lt=1.0, description="AdamW's decay of the mean gradient."
    )
    adam_beta2: float = Field(
        default=0.999, ge=0.0, lt=1.0, description="AdamW's decay of the mean squared gradient."
    )
    adam_epsilon: float = Field(
        default=1e-8, gt=0.0, description="AdamW's term that keeps the division finite."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Shape of the learning rate after warm-up."
    )
    warmup_ratio: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Share of all steps in which the rate rises from 0.",
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0.0, description="Gradients are clipped to this norm."
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16",
        description="Compute precision; master weights and Adam states are float32.",
    )
    gradient_checkpointing: bool = Field(
        default=True,
        description="Keep one activation per layer and recompute the rest in backward.",
    )


class SftRecipe(Optimisation):
    """Supervised fine-tuning on demonstrations, loss on the response alone (STILL-2 section 2)."""

    learning_rate: float = Field(default=1e-5, gt=0.0, le=1.0, description="Peak learning rate.")
    batch_size: int = Field(
        default=96, ge=1, description="Demonstrations per optimiser step, all ranks."
    )
    epochs: int = Field(
        default=17,
        ge=1,
        le=1000,
        description="Passes over the data; open in STILL-2, 17 for 0.8k rows in STILL-3-Tool.",
    )
    max_length: int = Field(
        default=20_000,
        ge=2,
        description="Longest row in tokens; longer rows are dropped and counted.",
    )
    group_by_length: bool = Field(
        default=True,
        description="Rows of like length share a batch; saves padding, changes the batches.",
    )
    packing: bool = Field(
        default=False,
        description="Rows lie end to end without padding; none sees another's tokens.",
    )

    def longest_forward(self) -> int:
        """Tokens of the longest row."""
        return self.max_length

    def trainings_per_row(self) -> float:
        """Forwards with a backward of a demonstration in the whole job."""
        return float(self.epochs)


class DpoTarget(StrEnum):
    """Which tokens of a response the preference loss sees (STILL-2 Table 4)."""

    RESPONSE = "response"
    THOUGHT = "thought"


class DpoRecipe(Optimisation):
    """Direct preference optimisation from M_1 (STILL-2 section 2.3; values open in the paper)."""

    target: DpoTarget = Field(
        default=DpoTarget.THOUGHT, description="Compare whole responses or the thought alone."
    )
    beta: float = Field(default=0.1, gt=0.0, description="Strength of the pull to the reference.")
    sft_weight: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the added NLL of the chosen response; 0 leaves it out.",
    )
    learning_rate: float = Field(default=5e-7, gt=0.0, le=1.0, description="Peak learning rate.")
    batch_size: int = Field(default=64, ge=1, description="Pairs per optimiser step, all ranks.")
    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over the pairs.")
    max_length: int = Field(
        default=20_000, ge=2, description="Longest prompt + response; pairs beyond it are dropped."
    )
    weight_decay: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Not applied to norms and biases."
    )

    def longest_forward(self) -> int:
        """Tokens of the longest pair, padded."""
        return 2 * self.max_length

    def trainings_per_row(self) -> float:
        """Of both sides of a pair; the reference's forward is a third of one each."""
        return 2.0 * (self.epochs + 1.0 / 3.0)


class TrainResources(Section):
    """Where a training job runs. No part of identity: the losses agree to rounding on any."""

    num_ranks: int = Field(
        default=1, ge=1, le=4096, description="Processes; FSDP2 shards over them."
    )
    cpus_per_rank: float = Field(
        default=1.0,
        ge=0.0,
        description="Cores that Ray reserves for a rank; a fraction shares one.",
    )
    threads_per_rank: int = Field(default=2, ge=1, description="Threads that torch computes with.")
    gpus_per_rank: int = Field(default=0, ge=0, le=1, description="1 on GPU nodes, 0 on CPU.")
    micro_batch_tokens: int = Field(
        default=16_384,
        ge=1,
        description="Most tokens, padding included, in one forward of one rank.",
    )
    checkpoint_every: int = Field(
        default=100, ge=0, description="Steps between checkpoints; 0 saves none before the end."
    )
    keep_checkpoints: int = Field(
        default=2,
        ge=1,
        description="Newest whole checkpoints kept until the model is published.",
    )
    max_failures: int = Field(
        default=3, ge=0, description="Restarts from the last checkpoint allowed."
    )
    start_timeout_s: float = Field(
        default=600.0, gt=0.0, description="Longest wait for the cluster to grant the ranks."
    )
    stall_timeout_s: float = Field(
        default=3_600.0,
        gt=0.0,
        description="Longest time without a step before the ranks are restarted.",
    )
