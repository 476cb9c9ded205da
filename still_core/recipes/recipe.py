"""The recipe of a STILL-2 run: one frozen tree of sections, each defined beside its reader."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from still_core.evaluate.recipe import EvaluateRecipe
from still_core.identity import digest
from still_core.problems.pool import PoolRecipe
from still_core.problems.recipe import ProblemsRecipe
from still_core.recipes.section import Section
from still_core.refine.recipe import CleanRecipe, DistilRecipe, MixRecipe, SelectRecipe
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe
from still_core.rollout.recipe import Resources as RolloutResources
from still_core.train.recipe import SftRecipe, TrainResources
from still_core.verify.recipe import VerifyRecipe


class BackboneRecipe(Section):
    """M_0, the model that every round is trained from."""

    model: str = Field(
        description="`miniature` (ships with the package), a local folder, or a hub name."
    )
    prompt: str = Field("still-2", description="Name of the prompt that wraps every problem.")


class Resources(Section):
    """Where and on what a run works. No part of any result's identity."""

    rollout: RolloutResources = Field(default_factory=RolloutResources)
    train: TrainResources = Field(default_factory=TrainResources)
    verify_workers: int = Field(1, ge=1, le=256, description="Verifier processes.")


class Still2Recipe(Section):
    """Imitate, explore, self-improve (STILL-2)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Name of the run's folder.")
    seed: int = Field(0, ge=0, description="Every other seed derives from it.")
    rounds: int = Field(2, ge=0, le=50, description="N, turns of explore and self-improve.")
    start_from: Literal["backbone", "previous"] = Field(
        "backbone",
        description="M_{t+1} is trained from M_0 (the paper) or from M_t (its control).",
    )
    backbone: BackboneRecipe
    problems: ProblemsRecipe
    pool: PoolRecipe = Field(default_factory=PoolRecipe)
    distil: DistilRecipe
    clean: CleanRecipe
    select: SelectRecipe
    mix: MixRecipe
    sft: SftRecipe
    engine: EngineRecipe
    explore: ExploreRecipe
    verify: VerifyRecipe = Field(default_factory=VerifyRecipe)
    evaluate: EvaluateRecipe

    def run_name(self) -> str:
        """Folder name of a run: equal recipes share it."""
        return f"{self.name}-{digest(self, length=8)}"
