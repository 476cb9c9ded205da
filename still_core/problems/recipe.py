"""Recipe sections of the problems room: which sources and benchmarks, which filters, which gate.

Light on purpose: pydantic only, so that recipes and `still --help` import in milliseconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import Field, model_validator

from still_core.errors import ConfigError, explain
from still_core.problems.problem import AnswerKind, Bucket, QuestionType
from still_core.recipes.section import Section


class SourceSpec(Section):
    """One file, folder, bucket prefix or hub data set of problems, and how to read it.

    `path` is a local path, any fsspec URI (`s3://...`), `hf:org/name?split=train&config=main` or
    `miniature:arithmetic/hard?count=200&seed=7`.
    """

    name: str = Field(description="Name in ids and lineage; ids are `name/row`.", min_length=1)
    adapter: str = Field(description="How rows are read; `generic` uses the field map alone.")
    path: str = Field(description="Local path, fsspec URI, `hf:` or `miniature:` form.")
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="Our field -> dotted path in the row, e.g. response: messages.1.content.",
    )
    subsets: tuple[str, ...] = Field(
        default=(), description="Subsets, difficulties or topics to keep; empty: the adapter's own."
    )
    limit: int | None = Field(default=None, ge=1, description="Read at most this many rows.")
    bucket: Bucket | None = Field(default=None, description="Overrides the adapter's bucket.")
    domain: str | None = Field(default=None, description="Overrides the adapter's domain.")
    kind: AnswerKind | None = Field(default=None, description="Overrides the kind of answer.")
    licence: str | None = Field(default=None, description="Overrides the adapter's licence.")
    teacher: str = Field(default="", description="Teacher of the responses where rows name none.")
    year_max: int | None = Field(
        default=None, description="Last year to keep; the AIME adapter's own is 2023."
    )

    @model_validator(mode="after")
    def _adapter_is_known(self) -> Self:
        # Adapters read this module.
        from still_core.problems.sources import adapter

        if self.adapter != "miniature":
            adapter(self.adapter)
        elif not self.path.startswith("miniature:"):
            raise ConfigError(
                explain(
                    "miniature is no adapter of files: it makes problems",
                    got=self.path,
                    expected="miniature:DOMAIN/LEVEL?count=&seed=",
                    remedy="set the source's adapter, e.g. to any",
                )
            )
        return self


class BenchmarkSpec(Section):
    """One benchmark used for evaluation, and therefore for the decontamination gate."""

    name: str = Field(min_length=1, description="Name in the report and in `evaluate.benchmarks`.")
    source: SourceSpec
    level: str = Field(
        default="other",
        pattern="^(normal|hard|other)$",
        description="Column group in the report's tables.",
    )


class FilterRecipe(Section):
    """Which problems are fit for training by rule rewards (STILL-3 section 2.1)."""

    drop_duplicates: bool = Field(default=True, description="Keep the first of equal statements.")
    kinds: tuple[AnswerKind, ...] = Field(default=(), description="Kinds to keep; empty: all.")
    drop_question_types: tuple[QuestionType, ...] = Field(
        default=(), description="Question types to drop."
    )
    require_numeric_gold: bool = Field(
        default=False, description="Drop golds of kind math that SymPy can not turn into digits."
    )


class DecontaminateRecipe(Section):
    """The gate: when a training problem counts as a benchmark's, and what happens then."""

    ngram: int = Field(default=8, ge=3, le=50, description="Words in one fingerprint n-gram.")
    containment: float = Field(
        default=0.6,
        gt=0.0,
        le=1.0,
        description="Share of a benchmark problem's n-grams in a training problem that is overlap.",
    )
    drop: bool = Field(default=True, description="Drop overlapping training problems first.")
    threshold: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Share of a benchmark's problems that may be left in the training data.",
    )
    waiver: str = Field(
        default="",
        description="Who allows more, and why; recorded with the data where needed. Empty: nobody.",
    )


class ProblemsRecipe(Section):
    """From raw sources to clean problems."""

    sources: tuple[SourceSpec, ...] = Field(default=())
    benchmarks: tuple[BenchmarkSpec, ...] = Field(default=())
    filters: FilterRecipe = Field(default_factory=FilterRecipe)
    decontaminate: DecontaminateRecipe = Field(default_factory=DecontaminateRecipe)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        named = {
            "sources": [source.name for source in self.sources],
            "benchmarks": [benchmark.name for benchmark in self.benchmarks],
            # Answers are told apart by problem id, which begins with the source's name.
            "sources of benchmarks": [benchmark.source.name for benchmark in self.benchmarks],
        }
        for what, names in named.items():
            if twice := sorted(name for name, n in Counter(names).items() if n > 1):
                raise ConfigError(
                    explain(f"two {what} of one name", got=twice, remedy="rename one")
                )
        return self
