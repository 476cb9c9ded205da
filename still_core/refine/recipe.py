"""Recipe sections of refinement: cleaning, selection, mixing, distillation. Light: pydantic alone.

What the papers leave open (thresholds of cleaning, mixing ratios, cut-offs of selection) is this
project's choice, made on real thoughts; `docs/reference/cleaning-rules.md` has the figures.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations
from typing import Self

from pydantic import Field, field_validator, model_validator

from still_core.errors import ConfigError, explain
from still_core.problems.problem import Bucket
from still_core.recipes.section import Section
from still_core.responses.unify import Style
from still_core.verify.verdict import Outcome

RULES_VERSION = "2026.11.21.2"
"""Raised whenever a rule decides differently under the same recipe."""

SET_RULES = ("duplicate_problem", "duplicate_response")
"""Rules that look at all rows together; they come after the rules that look at one."""


class CleanRecipe(Section):
    """Thresholds of the cleaning rules; every rule can be switched off by name."""

    rules: tuple[str, ...] = Field(
        default=(
            "verdict",
            "markup",
            "truncated",
            "short",
            "repetition",
            "gibberish",
            "scripts",
            "duplicate_problem",
            "duplicate_response",
        ),
        description="Rules to apply, in this order.",
    )
    keep_outcomes: tuple[Outcome, ...] = Field(
        default=(Outcome.CORRECT,),
        description="Verdicts that pass (STILL-2 keeps correct responses alone).",
    )
    min_thought_characters: int = Field(
        default=200, ge=0, le=1_000_000, description="Shorter thoughts are dropped, in characters."
    )
    min_thought_steps: int = Field(
        default=1, ge=1, le=1000, description="Least number of steps between blank lines."
    )
    repetition_ngram_tokens: int = Field(
        default=16, ge=2, le=200, description="Length n of the n-grams that are counted, in tokens."
    )
    max_repeated_ngrams: float = Field(
        default=0.30,
        ge=0.0,
        le=1.0,
        description="Largest share of n-grams that stood in the text before, 0 to 1.",
    )
    min_loop_tokens: int = Field(
        default=64,
        ge=4,
        le=100_000,
        description="Least length of a loop's repeated part, in tokens.",
    )
    min_word_loop_tokens: int = Field(
        default=24,
        ge=4,
        le=100_000,
        description="The same where half of each turn or more is prose; no formula loops so soon.",
    )
    min_short_loop_tokens: int = Field(
        default=40,
        ge=4,
        le=100_000,
        description="The same for prose whose turns have fewer than 5 tokens.",
    )
    min_loop_turns: float = Field(
        default=3.0, ge=2.0, le=1000.0, description="Least number of turns that make a loop."
    )
    min_numbered_loop_turns: float = Field(
        default=6.0,
        ge=2.0,
        le=100_000.0,
        description="Least number of turns of a loop whose counter alone changes.",
    )
    min_numbered_loop_words: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="Least number of words in one turn of such a loop.",
    )
    max_numbered_loop_changes: float = Field(
        default=1.5,
        ge=0.0,
        le=1000.0,
        description="Most numbers that change from turn to turn; checks of cases change more.",
    )
    gibberish_window_letters: int = Field(
        default=120, ge=20, le=10_000, description="Letters of plain words judged at a time."
    )
    min_word_plausibility: float = Field(
        default=-4.0,
        ge=-10.0,
        le=0.0,
        description="Least mean log-probability (nats) of letter pairs within words of a window.",
    )
    gibberish_window_characters: int = Field(
        default=96, ge=20, le=10_000, description="Characters judged at a time, symbols included."
    )
    min_character_plausibility: float = Field(
        default=-3.8,
        ge=-10.0,
        le=0.0,
        description="Least mean log-probability (nats) of character pairs in a window.",
    )
    min_gibberish_words: int = Field(
        default=6,
        ge=2,
        le=1000,
        description="Least number of oddly written words in a row that are judged as gibberish.",
    )
    max_blob_characters: int = Field(
        default=64,
        ge=10,
        le=1_000_000,
        description="Longest run of mixed letters and digits that passes, in characters.",
    )
    max_broken_characters: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Most control, private-use and replacement characters in a response.",
    )
    max_foreign_letters: int = Field(
        default=1,
        ge=0,
        le=100_000,
        description="Most letters of a script that neither the problem nor mathematics has.",
    )
    shingle_tokens: int = Field(
        default=5, ge=1, le=50, description="Length of the shingles that are compared, in tokens."
    )
    duplicate_jaccard: float = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="Least Jaccard similarity of shingle sets that makes two texts duplicates.",
    )
    min_duplicate_tokens: int = Field(
        default=64,
        ge=0,
        le=1_000_000,
        description="Shorter responses (in shingles) repeat only responses to the same problem.",
    )

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        known = cls.model_fields["rules"].default
        for rule in rules:
            if rule not in known:
                raise ConfigError(explain("unknown rule", got=rule, expected=", ".join(known)))
        if len(set(rules)) != len(rules):
            raise ConfigError(explain("a rule is named twice", got=rules))
        set_rules = [rule in SET_RULES for rule in rules]
        if set_rules != sorted(set_rules):
            raise ConfigError(explain("duplicates are searched last", got=rules))
        return rules


class Direction(StrEnum):
    """Which end of a ranking is kept."""

    HIGHEST = "highest"
    LOWEST = "lowest"


class PerplexitySource(StrEnum):
    """Where the perplexity of an explored response comes from."""

    FORWARD = "forward"
    """A forward pass over prompt and whole response, end-of-sequence token included."""
    ROLLOUT = "rollout"
    """The log-probs that the sampler recorded: free, of the sampled tokens alone."""


class SelectRecipe(Section):
    """Selection among clean demonstrations. A share of 1 switches a criterion off."""

    length_share: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share kept by thought length; longer is better (STILL-2).",
    )
    length_direction: Direction = Field(default=Direction.HIGHEST, description="End that is kept.")
    perplexity_share: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Share kept by perplexity under the current model."
    )
    perplexity_direction: Direction = Field(
        default=Direction.HIGHEST,
        description="End that is kept; STILL-2 keeps harder, higher ones.",
    )
    perplexity_source: PerplexitySource = Field(
        default=PerplexitySource.FORWARD,
        description="A forward pass of the model that found the response, or its rollout's "
        "log-probs: these cost nothing, but are in the sampler's arithmetic and may lack the last "
        "token. One kind for a whole run.",
    )
    per_problem: int = Field(
        default=0, ge=0, le=10_000, description="Most demonstrations of one problem; 0 keeps all."
    )


class PairRecipe(Section):
    """DPO pairs: chosen correct with higher, rejected incorrect with lower perplexity (STILL-2)."""

    max_pairs_per_problem: int = Field(
        default=1, ge=1, le=1000, description="Most pairs of one problem (not stated in the paper)."
    )
    by_perplexity: bool = Field(
        default=True, description="False takes chosen and rejected by id, as the control."
    )


class MixRecipe(Section):
    """Mixing by weights over difficulty buckets, or over domains where `by` says so.

    The paper found its ratios by experiments and does not state them; equal weights are this
    project's choice.
    """

    by: str = Field(
        default="bucket", pattern="^(bucket|domain)$", description="What the weights name."
    )
    weights: dict[str, float] = Field(
        default_factory=lambda: {"hard_math": 1.0, "normal_math": 1.0, "other": 1.0},
        description="Weight of each bucket or domain, >= 0; those not named weigh nothing.",
    )
    target_size: int = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="Demonstrations wanted; 0 takes all that have a weight, or with fill=False as "
        "many as stand in the exact proportions.",
    )
    fill: bool = Field(
        default=True,
        description="Where a bucket has too few, fill from the others; False shrinks the mixture.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice within a bucket.")

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(w < 0 for w in weights.values()) or not any(w > 0 for w in weights.values()):
            raise ConfigError(
                explain("no weight above 0, or one below", got=weights, expected="weights >= 0")
            )
        return weights

    @model_validator(mode="after")
    def _buckets_are_known(self) -> Self:
        if self.by == "bucket" and (unknown := sorted(set(self.weights) - set(Bucket))):
            raise ConfigError(
                explain(
                    "weights name no bucket",
                    got=unknown,
                    expected=", ".join(Bucket),
                    remedy="fix the name, or set mix.by=domain",
                )
            )
        return self


class Teacher(Section):
    """One source of demonstrations: files, a live model, or the miniature's script."""

    name: str = Field(min_length=1, description="Recorded as the author of its responses.")
    kind: str = Field(
        default="file",
        pattern="^(file|endpoint|local|scripted)$",
        description="Existing files, an OpenAI-compatible endpoint, a local model, or a script.",
    )
    source: str = Field(
        default="",
        description="For kind=local or endpoint: the model that is asked; for kind=scripted: "
        "separate or stream.",
    )
    problems: tuple[str, ...] = Field(
        default=(),
        description="Problem sources it answers, or whose rows hold its responses; empty: all.",
    )
    style: Style = Field(
        default=Style.AUTO, description="Its habit of writing; `auto` tells it per source."
    )
    responses_per_problem: int = Field(
        default=1, ge=1, le=1000, description="Responses drawn or read per problem."
    )

    @model_validator(mode="after")
    def _live_models_are_named(self) -> Self:
        if self.kind in ("local", "endpoint") and not self.source:
            raise ConfigError(
                explain(
                    f"teacher {self.name!r} of kind {self.kind} names no model",
                    got=self.source,
                    expected="the model that is asked",
                    remedy="set the teacher's `source`",
                )
            )
        return self


class DistilRecipe(Section):
    """Distillation: teachers, and what becomes of thoughts without a solution."""

    teachers: tuple[Teacher, ...] = Field(
        description="At least one; several of files read different problem sources.", min_length=1
    )
    complete_solutions: bool = Field(
        default=True,
        description="Let a fine-tuned model complete QwQ-style thoughts; False drops them.",
    )
    solution_max_tokens: int = Field(
        default=4096,
        ge=1,
        description="Longest solution that this model writes, greedily, in tokens.",
    )
    temperature: float = Field(default=0.6, ge=0.0, le=5.0, description="Of live teachers.")
    top_p: float = Field(default=0.95, gt=0.0, le=1.0, description="Of live teachers.")
    max_tokens: int = Field(default=20_000, ge=1, description="Longest response, in tokens.")

    @model_validator(mode="after")
    def _files_are_read_once(self) -> Self:
        files = [teacher for teacher in self.teachers if teacher.kind == "file"]
        for one, other in combinations(files, 2):
            apart = one.problems and other.problems and not set(one.problems) & set(other.problems)
            if not apart:
                raise ConfigError(
                    explain(
                        "two teachers of files would take the same responses",
                        got=[one.name, other.name],
                        expected="problem sources of its own for each",
                        remedy="set the teachers' `problems`",
                    )
                )
        return self

    def local_models(self) -> list[str]:
        """What the teachers of kind `local` are: these alone are run by the recipe's engine."""
        return [teacher.source for teacher in self.teachers if teacher.kind == "local"]
