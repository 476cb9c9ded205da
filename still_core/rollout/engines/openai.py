"""Any OpenAI-compatible endpoint as an engine: teachers, or a vLLM server that others run.

Its weights are whatever the endpoint serves under the recipe's model name, so `load_weights` only
notes the label. Token ids and log-probs are empty unless the server returns them.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from still_core.errors import ConfigError, RolloutError, explain
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, Resources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest
from still_core.rollout.weights import Weights

_TRIES = 6
_FIRST_BACKOFF_S = 0.5
_REQUEST_TIMEOUT_S = 600.0


class OpenAIEngine(Engine):
    """Completions from an HTTP endpoint, `max_num_seqs` requests at a time.

    The key is read from `OPENAI_API_KEY` and never shown.
    """

    def __init__(self, recipe: EngineRecipe, resources: Resources, weights: Weights) -> None:
        super().__init__(recipe, resources, weights)
        if not recipe.model or not resources.endpoint:
            raise ConfigError(
                explain(
                    "engine openai needs a model name and an endpoint",
                    got={"model": recipe.model, "endpoint": resources.endpoint},
                    remedy="set engine.model and resources.endpoint",
                )
            )
        self._threads = ThreadPoolExecutor(resources.max_num_seqs, thread_name_prefix="openai")
        self._futures: dict[str, Future[Completion]] = {}

    def _load(self, weights: Weights) -> None:
        return

    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        for request in requests:
            self._futures[request.id] = self._threads.submit(self._ask, request)

    def step(self) -> list[Finished]:
        """Completions that have arrived; waits up to 0.2 s for the first."""
        wait(self._futures.values(), timeout=0.2, return_when=FIRST_COMPLETED)
        done = [identity for identity, future in self._futures.items() if future.done()]
        return [(identity, self._futures.pop(identity).result()) for identity in done]

    def abort(self, ids: Iterable[str]) -> None:
        """Forget these requests; one that is on the wire runs out unheard."""
        for identity in ids:
            future = self._futures.pop(identity, None)
            if future is not None:
                future.cancel()

    def pending(self) -> int:
        """Requests queued or on the wire."""
        return len(self._futures)

    def score(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Not offered by endpoints.

        Raises:
            RolloutError: always.
        """
        raise RolloutError(
            explain("an OpenAI endpoint scores no tokens", remedy="use the vllm engine")
        )

    def close(self) -> None:
        """Drop queued requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, request: RolloutRequest) -> Completion:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.recipe.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self.recipe.api == "chat":
            body["messages"] = [{"role": "user", "content": request.prompt}]
            choice = self._post("chat/completions", body)
            message = choice["message"]
            text = message.get("content") or ""
            # Servers with a reasoning parser hand the thought over apart from the answer.
            thought = message.get("reasoning_content") or message.get("reasoning")
            if thought:
                text = f"<think>\n{thought}\n</think>\n{text}"
        else:
            choice = self._post("completions", {**body, "prompt": request.prompt})
            text = choice.get("text") or ""
        return Completion(
            text=text,
            token_ids=tuple(choice.get("token_ids") or ()),
            logprobs=(),
            finish_reason=_finish_reason(choice.get("finish_reason")),
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of the answer; retries throttling, server errors and lost connections.

        Raises:
            RolloutError: the endpoint refuses, or fails `_TRIES` times.
        """
        url = f"{self.resources.endpoint.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        cause = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_FIRST_BACKOFF_S * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S) as reply:
                    choice: dict[str, Any] = json.load(reply)["choices"][0]
                    return choice
            except urllib.error.HTTPError as error:
                cause = f"HTTP {error.code}"
                if error.code != 429 and error.code < 500:
                    break
            except (OSError, ValueError, KeyError, IndexError) as error:
                cause = f"{type(error).__name__}: {error}"
        raise RolloutError(
            explain(
                f"endpoint {url} gave no completion",
                got=cause,
                remedy="check the endpoint, the model name and OPENAI_API_KEY",
            )
        )


def _finish_reason(reason: str | None) -> FinishReason:
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP
