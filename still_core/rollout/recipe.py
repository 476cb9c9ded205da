"""Settings of rollouts: engine, machines, exploration. Imports pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from still_core.errors import ConfigError, explain
from still_core.recipes.section import Section
from still_core.rollout.rollout import Sampling


class EngineRecipe(Section):
    """Which engine draws completions, and what of it fixes their distribution."""

    kind: Literal["vllm", "transformers", "openai"] = Field(
        "vllm",
        description="vllm on GPU or CPU; transformers as portable fallback. openai asks teachers "
        "of kind=endpoint; a recipe that sets it is refused, as it can not load M_t.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type of weights and activations. float32 on CPU."
    )
    max_model_len: int = Field(
        512, ge=16, description="Longest prompt plus completion, in tokens; the rest is cut."
    )
    model: str = Field(
        "", description="Model name at the endpoint; for kind=openai alone, not for a recipe."
    )
    api: Literal["completions", "chat"] = Field(
        "completions",
        description="For kind=openai alone, not for a recipe: completions sends the rendered "
        "prompt as it is, chat sends it as one user message.",
    )


class RolloutResources(Section):
    """Where and how wide rollouts run, and how long to wait for a worker. No part of identity."""

    num_actors: int = Field(1, ge=1, description="Ray actors, each hosting one engine.")
    cpus_per_actor: float = Field(1.0, ge=0.0, description="CPUs that Ray reserves per actor.")
    gpus_per_actor: float = Field(0.0, ge=0.0, description="GPUs that Ray reserves per actor.")
    threads_per_actor: int = Field(1, ge=1, description="OpenMP threads of one engine on CPU.")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one engine's weights.")
    max_num_seqs: int = Field(64, ge=1, description="Completions that one engine draws at once.")
    kv_cache_gib: int = Field(
        1,
        ge=1,
        description="Most KV cache of one engine on CPU, GiB; it takes less where `max_num_seqs` "
        "completions of full length need less.",
    )
    gpu_memory_utilization: float = Field(0.9, gt=0.0, le=1.0)
    enforce_eager: bool = Field(True, description="No CUDA graphs, no compilation.")
    endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Base URL of teachers of kind=endpoint, e.g. http://host:8000/v1.",
    )
    requests_per_minute: float = Field(
        0.0, ge=0.0, description="Most requests that one actor sends to the endpoint; 0: no limit."
    )
    start_deadline_s: float = Field(900.0, gt=0, description="Longest start of an engine.")
    stall_deadline_s: float = Field(
        180.0, gt=0, description="An engine with work and no step for this long is replaced."
    )
    straggler_s: float = Field(
        300.0, gt=0, description="A completion older than this is also given to an idle worker."
    )
    max_restarts: int = Field(
        3, ge=0, description="Restarts of a worker in a row without one finished completion."
    )

    waves: tuple[int, ...] = Field(
        (1, 1, 2, 4, 4, 8),
        min_length=1,
        description="Attempts in flight per explored problem: as many as the wave that the number "
        "of finished attempts falls in, and two more than have finished where an engine has empty "
        "places, at most the widest wave. (1,) is strictly one by one and wastes nothing.",
    )
    abort_siblings: bool = Field(
        True, description="Cut attempts with a higher index once an attempt is correct."
    )

    @model_validator(mode="after")
    def _waves_are_positive(self) -> RolloutResources:
        if min(self.waves) < 1:
            raise ConfigError(
                explain("rollout.waves", got=list(self.waves), expected="positive integers")
            )
        return self

    @model_validator(mode="after")
    def _weights_find_their_gpus(self) -> RolloutResources:
        if self.tensor_parallel > max(1.0, self.gpus_per_actor):
            raise ConfigError(
                explain(
                    "an actor has fewer GPUs than share its weights",
                    got=f"gpus_per_actor={self.gpus_per_actor:g}",
                    expected=f"tensor_parallel={self.tensor_parallel} or more",
                    remedy="raise gpus_per_actor or lower tensor_parallel",
                )
            )
        return self

    def in_flight_limit(self, finished: int) -> int:
        """Attempts of one problem that may run at once after `finished` attempts have ended.

        >>> resources = RolloutResources(waves=(1, 1, 2, 4))
        >>> [resources.in_flight_limit(n) for n in range(9)]
        [1, 1, 2, 2, 4, 4, 4, 4, 4]
        """
        start = 0
        for width in self.waves:
            start += width
            if finished < start:
                return width
        return self.waves[-1]

    def idle_limit(self, finished: int) -> int:
        """The same where an engine has places that would stand empty otherwise.

        The next attempt starts if it is more likely wanted than not. After k failures, and with a
        pass rate of which nothing else is known (uniform), m running ones all fail with
        probability (k + 1) / (k + 1 + m): at least half up to m = k + 1. Never more run than the
        widest wave allows, so that (1,) stays strictly one by one.

        >>> resources = RolloutResources(waves=(1, 1, 2, 4))
        >>> [resources.idle_limit(n) for n in range(5)]
        [2, 3, 4, 4, 4]
        """
        return min(finished + 2, max(self.waves))


class ExploreRecipe(Section):
    """Roll out until a correct response, at most `max_attempts` (STILL-2 section 2.3: 20)."""

    sampling: Sampling
    max_attempts: int = Field(20, ge=1, le=1024, description="Rollouts per problem at most.")
