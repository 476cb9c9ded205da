"""Any OpenAI-compatible endpoint as an engine: how teachers of kind `endpoint` are asked.

Its weights are whatever the endpoint serves under the recipe's model name, so `load_weights` only
notes the label, and preflight refuses it for the models of a run. Token ids and log-probs are
empty unless the server returns them.

    request -> its turn (rate limit, a pause the server asked for) -> POST -> completion
                   ^------------- throttled, failing or unreachable: again ----|

An endpoint that throttles is waited for as long as it asks, up to `_THROTTLED_S`; one that fails
`_TRIES` times in a row for a request ends the engine. A question that it refuses is put aside until
it has answered another: the refusal is then that question's result. An endpoint that refuses all
that it is asked ends the engine. What has been drawn is in the bank.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple

from still_core.errors import ConfigError, RolloutError, explain
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest
from still_core.rollout.weights import Weights

_TRIES = 6
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60.0
_THROTTLED_S = 3600.0
"""Longest that one request is throttled before the engine gives up."""
_REQUEST_TIMEOUT_S = 600.0
_REFUSALS = (400, 413, 422)
_PASSING = (408, 409, 425)
"""Below 500 and yet no word on the request: timeout, conflict, too early."""
_ABOUT_THE_KEY = (401, 403)
"""Bodies that may hold a part of the key: not shown."""
_SETTING_REFUSED = 16
"""Different questions refused, and none answered, that show that the setting is wrong."""
_BODY_BYTES = 65536
_REFUSED = Completion(text="", token_ids=(), logprobs=(), finish_reason=FinishReason.ABORT)
"""What stands for the answer to a question that an endpoint refuses though it answers others: too
long, or against its policy. An empty response, counted as such, that does not stop the rest."""


class Refusal(NamedTuple):
    """A request that the endpoint will not answer, and what it says of it."""

    request: RolloutRequest
    cause: str


class Pace:
    """Turns to send: evenly spaced by the rate limit, after any pause that the server asked for."""

    def __init__(self, per_minute: float) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait_turn(self) -> None:
        """Wait for this thread's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            time.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class OpenAIEngine(Engine):
    """Completions from an HTTP endpoint, `max_num_seqs` requests at a time.

    The key is read from `OPENAI_API_KEY` and never shown.
    """

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        super().__init__(recipe, resources, weights)
        check_endpoint(recipe, resources)
        self._threads = ThreadPoolExecutor(resources.max_num_seqs, thread_name_prefix="openai")
        self._futures: dict[str, Future[Completion | Refusal]] = {}
        self._refused: dict[str, Refusal] = {}
        self._pace = Pace(resources.requests_per_minute)
        self._closed = self._answered = False

    def _load(self, weights: Weights) -> None:
        return

    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        for request in requests:
            self._futures[request.id] = self._threads.submit(self._ask, request)

    def step(self) -> list[Finished]:
        """Completions that have arrived; waits up to 0.2 s for the first.

        Raises:
            RolloutError: a request failed, or all were refused; in a step in which nothing arrived.
        """
        wait(self._futures.values(), timeout=0.2, return_when=FIRST_COMPLETED)
        finished: list[Finished] = []
        failure: BaseException | None = None
        for identity, future in list(self._futures.items()):
            if not future.done():
                continue
            if (error := future.exception()) is not None:
                # Stays pending until it is raised.
                failure = failure or error
                continue
            del self._futures[identity]
            answer = future.result()
            if isinstance(answer, Refusal):
                self._refused[identity] = answer
            else:
                finished.append((identity, answer))
        if self._answered:
            finished.extend((identity, _REFUSED) for identity in self._refused)
            self._refused.clear()
        if failure is not None and not finished:
            raise failure
        self._check_setting()
        return finished

    def _check_setting(self) -> None:
        """See that the endpoint has not refused everything."""
        questions = {refusal.request.prompt for refusal in self._refused.values()}
        if not questions or (self._futures and len(questions) < _SETTING_REFUSED):
            return
        first = next(iter(self._refused.values()))
        raise RolloutError(
            explain(
                f"endpoint {self.resources.endpoint} refused all {len(self._refused)} requests "
                f"that it replied to, the first for problem {first.request.problem_id}",
                got=first.cause,
                remedy="check max_tokens, the other sampling settings and engine.api; if it is the "
                "problem, leave it out",
            )
        )

    def abort(self, ids: Iterable[str]) -> None:
        """Forget these requests; one that is on the wire runs out unheard."""
        for identity in ids:
            self._refused.pop(identity, None)
            future = self._futures.pop(identity, None)
            if future is not None:
                future.cancel()

    def pending(self) -> int:
        """Requests queued, on the wire or put aside."""
        return len(self._futures) + len(self._refused)

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
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, request: RolloutRequest) -> Completion | Refusal:
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
            choice = self._post("chat/completions", body, "message", request)
        else:
            body["prompt"] = request.prompt
            choice = self._post("completions", body, "text", request)
        if isinstance(choice, Refusal):
            return choice
        reason = _finish_reason(choice.get("finish_reason"))
        text = _chat_text(choice["message"], reason) if "message" in choice else choice["text"]
        return Completion(
            # A lone surrogate in an escape could not be stored.
            text=(text or "").encode("utf-8", "replace").decode(),
            token_ids=tuple(choice.get("token_ids") or ()),
            logprobs=(),
            finish_reason=reason,
        )

    def _post(
        self, path: str, body: dict[str, Any], holds: str, question: RolloutRequest
    ) -> dict[str, Any] | Refusal:
        """The first choice of the answer; retries throttling, server errors and lost connections.

        Raises:
            RolloutError: the endpoint knows no such model or key, fails `_TRIES` times, or
                throttles too long.
        """
        url = f"{self.resources.endpoint.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY", "").strip():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        cause, failures, throttled = "", 0, 0
        give_up = time.monotonic() + _THROTTLED_S
        while failures < _TRIES and time.monotonic() < give_up and not self._closed:
            self._pace.wait_turn()
            try:
                with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S) as reply:
                    choice: dict[str, Any] = json.load(reply)["choices"][0]
                    _ = choice[holds]
                self._answered = True
                return choice
            except urllib.error.HTTPError as error:
                cause = _cause(error)
                asked = _retry_after(error.headers.get("Retry-After"))
                if error.code == 429 or (error.code == 503 and asked is not None):
                    throttled += 1
                    self._pace.pause(_backoff(throttled) if asked is None else asked)
                    continue
                if error.code in _REFUSALS:
                    return Refusal(question, cause)
                if error.code < 500 and error.code not in _PASSING:
                    break
            except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                cause = _cause(error)
            failures += 1
            if failures < _TRIES:
                time.sleep(_backoff(failures))
        raise RolloutError(
            explain(
                f"endpoint {url} gave no completion for problem {question.problem_id}",
                got=cause,
                remedy="check the endpoint, the model name and OPENAI_API_KEY",
            )
        )


def check_endpoint(recipe: EngineRecipe, resources: RolloutResources) -> None:
    """Refuse an engine that does not know whom to ask.

    Raises:
        ConfigError: the model's name or the address is missing.
    """
    if not recipe.model or not resources.endpoint:
        raise ConfigError(
            explain(
                "engine openai needs a model name and an endpoint",
                got={"model": recipe.model, "endpoint": resources.endpoint},
                remedy="set engine.model and --resource rollout.endpoint=http://.../v1",
            )
        )


def _chat_text(message: dict[str, Any], reason: FinishReason) -> str:
    """The text of a chat message.

    Servers with a reasoning parser hand the thought over apart from the answer; a thought that was
    cut stays open.
    """
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content)
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not thought:
        return str(content)
    if not content and reason.is_truncated():
        return f"<think>\n{thought}"
    return f"<think>\n{thought}\n</think>\n{content}"


def _cause(error: Exception) -> str:
    """One line on a failed request: status or error, and the gist of the body. Never the key."""
    if isinstance(error, urllib.error.HTTPError):
        told = "" if error.code in _ABOUT_THE_KEY else _told(error)
        line = f"HTTP {error.code}" + (f": {told}" if told else "")
    else:
        line = f"{type(error).__name__}: {error}"
    for part in os.environ.get("OPENAI_API_KEY", "").split():
        line = line.replace(part, "***")
    return " ".join(line.split())


def _told(error: urllib.error.HTTPError) -> str:
    """The message in the body of an error, or all of the body where it is no JSON."""
    try:
        with error:
            text = error.read(_BODY_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return ""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and told.get(name):
            told = told[name]
    return str(told) if told else ""


def _backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16))


def _retry_after(header: str | None) -> float | None:
    """Seconds that a `Retry-After` asks for, as a number or a date; None without a sound one."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _THROTTLED_S) if seconds == seconds else None


def _finish_reason(reason: str | None) -> FinishReason:
    return FinishReason.LENGTH if reason == "length" else FinishReason.STOP
