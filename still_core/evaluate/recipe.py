"""How models are evaluated. Fields are identity: a change runs the evaluations again."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from still_core.errors import explain
from still_core.recipes.section import Section
from still_core.rollout.rollout import Sampling


class EvaluateRecipe(Section):
    """STILL-2 section 3.1: greedy decoding, one sample a problem, at most 32k tokens."""

    sampling: Sampling = Field(description="How answers are drawn; temperature 0 is greedy.")
    num_samples: int = Field(
        1, ge=1, le=1024, description="Samples a problem; accuracy is their mean (mean@n)."
    )
    benchmarks: tuple[str, ...] = Field(
        (), description="Names of the benchmarks to run; empty runs all that the recipe declares."
    )

    @model_validator(mode="after")
    def _greedy_needs_no_siblings(self) -> Self:
        if self.sampling.greedy() and self.num_samples > 1:
            raise ValueError(
                explain(
                    "greedy decoding gives the same answer each time",
                    got=self.num_samples,
                    expected="num_samples 1",
                    remedy="set sampling.temperature above 0 or num_samples to 1",
                )
            )
        return self

    def selects(self, benchmark: str) -> bool:
        """Whether this benchmark is run."""
        return not self.benchmarks or benchmark in self.benchmarks
