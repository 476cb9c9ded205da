"""What a training job is: the inputs that define its weights, and their digest."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from still_core.errors import ConfigError, explain
from still_core.identity import digest
from still_core.store.handle import Handle
from still_core.train.model_folder import PATTERNS
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources

TRAINING_VERSION = "2026.11.22"
"""Bump when the same inputs would give other weights."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ABC):
    """One training run: from a model and a table of rows to new weights in the store."""

    model: Handle | Path
    """Start weights: published by an earlier job, or a local model folder."""
    prompt: str
    """Name of the prompt, see `still_core.responses.prompts`."""
    seed: int
    name: str
    """Under which the model is published, e.g. `runs/demo/m1`; checkpoints lie beside it."""
    version: str
    resources: TrainResources = field(default_factory=TrainResources)

    @property
    @abstractmethod
    def data(self) -> Handle:
        """The table of rows."""

    @property
    @abstractmethod
    def recipe(self) -> SftRecipe | DpoRecipe:
        """The hyper-parameters."""

    def digest(self, model_digest: str) -> str:
        """Identity of the weights that come out; names and resources are no part of it."""
        return digest(
            [
                TRAINING_VERSION,
                type(self.recipe).__name__,
                model_digest,
                self.data.digest,
                self.prompt,
                self.recipe,
                self.seed,
            ]
        )

    def checkpoints_name(self) -> str:
        """Name of this job's checkpoints in the store."""
        return f"{self.name}/checkpoints/{self.version}"


@dataclass(frozen=True, kw_only=True)
class SftJob(TrainingJob):
    """Supervised fine-tuning on demonstrations."""

    demonstrations: Handle
    """Table of `Demonstration` rows, or of rows with `id`, `prompt_text` and `completion_text`."""
    sft: SftRecipe

    @property
    def data(self) -> Handle:
        """The table of demonstrations."""
        return self.demonstrations

    @property
    def recipe(self) -> SftRecipe:
        """The SFT hyper-parameters."""
        return self.sft


@dataclass(frozen=True, kw_only=True)
class DpoJob(TrainingJob):
    """Preference optimisation on pairs; the start weights are the reference (STILL-2 2.3)."""

    pairs: Handle
    """Table of rows with `id`, `statement`, `chosen_thought`, `chosen_solution`,
    `rejected_thought` and `rejected_solution`."""
    dpo: DpoRecipe

    @property
    def data(self) -> Handle:
        """The table of pairs."""
        return self.pairs

    @property
    def recipe(self) -> DpoRecipe:
        """The DPO hyper-parameters."""
        return self.dpo

    def reference_name(self) -> str:
        """Name of the reference's log-probs in the store; their version is the job's digest."""
        return f"{self.name}/reference"


def folder_digest(directory: Path) -> str:
    """Identity of a local model folder: sha256 over the names and bytes of what defines the model.

    Raises:
        ConfigError: the folder has no config or no safetensors weights.
    """
    kept = sorted(
        path for pattern in PATTERNS for path in directory.glob(pattern) if path.is_file()
    )
    names = {path.name for path in kept}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ConfigError(
            explain(
                "not a model folder",
                got=str(directory),
                expected="config.json and *.safetensors",
                remedy="give a folder that transformers can load; pickled weights are refused",
            )
        )
    total = hashlib.sha256()
    for path in kept:
        with path.open("rb") as file:
            total.update(
                f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return total.hexdigest()
