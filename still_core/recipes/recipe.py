"""The recipe of a STILL-2 run: one frozen tree of sections, each defined beside its reader."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from still_core.errors import ConfigError, explain
from still_core.evaluate.recipe import EvaluateRecipe
from still_core.identity import digest
from still_core.problems.pool import PoolRecipe
from still_core.problems.recipe import ProblemsRecipe
from still_core.recipes.section import Section
from still_core.refine.recipe import CleanRecipe, DistilRecipe, MixRecipe, PairRecipe, SelectRecipe
from still_core.responses.prompts import prompt
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources
from still_core.verify.recipe import VerifyRecipe


class BackboneRecipe(Section):
    """M_0, the model that every round is trained from."""

    model: str = Field(
        description="`miniature` (ships with the package), a local folder, or a hub name."
    )
    prompt: str = Field("still-2", description="Name of the prompt that wraps every problem.")

    @field_validator("prompt")
    @classmethod
    def _prompt_is_known(cls, name: str) -> str:
        return prompt(name).name


class Resources(Section):
    """Where and on what a run works. No part of any result's identity."""

    rollout: RolloutResources = Field(default_factory=RolloutResources)
    train: TrainResources = Field(default_factory=TrainResources)
    verify_workers: int = Field(1, ge=1, le=256, description="Verifier processes.")
    stage_stall_s: float = Field(
        7_200.0,
        gt=0.0,
        description="A stage without progress for so long is ended; above the limits of workers.",
    )


class SelfImproveRecipe(Section):
    """How what a round found makes the next model (STILL-2 section 2.3.3)."""

    method: Literal["sft", "dpo"] = Field(
        "sft",
        description="sft trains on D_t, from M_0 or as `start_from` says; dpo trains M_1 on pairs "
        "of a correct and a wrong response to one problem.",
    )
    pairs: PairRecipe = Field(default_factory=PairRecipe, description="For method=dpo.")
    dpo: DpoRecipe = Field(default_factory=DpoRecipe, description="For method=dpo.")


class Still2Recipe(Section):
    """Imitate, explore, self-improve (STILL-2)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="Name of the run's folder.")
    seed: int = Field(0, ge=0, description="Every other seed derives from it.")
    rounds: int = Field(2, ge=0, le=50, description="N, turns of explore and self-improve.")
    start_from: Literal["backbone", "previous"] = Field(
        "backbone",
        description="SFT trains M_{t+1} from M_0 (the paper) or from M_t (its control).",
    )
    backbone: BackboneRecipe
    problems: ProblemsRecipe
    pool: PoolRecipe = Field(default_factory=PoolRecipe)
    distil: DistilRecipe
    clean: CleanRecipe
    select: SelectRecipe
    mix: MixRecipe
    sft: SftRecipe
    self_improve: SelfImproveRecipe = Field(default_factory=SelfImproveRecipe)
    engine: EngineRecipe
    explore: ExploreRecipe
    verify: VerifyRecipe = Field(default_factory=VerifyRecipe)
    evaluate: EvaluateRecipe

    @model_validator(mode="after")
    def _names_are_known(self) -> Still2Recipe:
        sources = {source.name for source in self.problems.sources}
        benchmarks = {benchmark.name for benchmark in self.problems.benchmarks}
        asked = {name for teacher in self.distil.teachers for name in teacher.problems}
        for field, names, known in (
            ("evaluate.benchmarks", self.evaluate.benchmarks, benchmarks),
            ("distil.teachers[].problems", asked, sources),
        ):
            if unknown := sorted(set(names) - known):
                raise ConfigError(
                    explain(
                        f"{field} names what is not declared", got=unknown, expected=sorted(known)
                    )
                )
        return self

    @model_validator(mode="after")
    def _dpo_can_work(self) -> Still2Recipe:
        if self.self_improve.method != "dpo":
            return self
        faults = {
            "start_from=previous": self.start_from == "previous",
            "rounds=0": self.rounds == 0,
            # Of one attempt there is no wrong response beside a correct one.
            "explore.max_attempts=1": self.explore.max_attempts == 1,
        }
        for fault in (name for name, present in faults.items() if present):
            raise ConfigError(
                explain(
                    f"self_improve.method=dpo does not go with {fault}",
                    remedy="DPO starts from M_1 and needs rounds with two attempts or more",
                )
            )
        return self

    def run_name(self) -> str:
        """Folder name of a run: equal recipes share it."""
        return f"{self.name}-{digest(self, length=8)}"
