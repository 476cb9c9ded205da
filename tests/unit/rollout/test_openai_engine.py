"""The engine for OpenAI-compatible endpoints, against a real HTTP server on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from still_core.errors import ConfigError, RolloutError
from still_core.rollout.engines import openai
from still_core.rollout.engines.openai import OpenAIEngine
from still_core.rollout.recipe import EngineRecipe, Resources
from still_core.rollout.rollout import FinishReason, RolloutRequest, Sampling
from still_core.rollout.weights import Weights

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]


class Endpoint:
    """Answers each POST with what `answer(body, number)` says and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda body, number: (200, plain("fine"))
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.paths.append(self.path)
                outer.keys.append(self.headers.get("Authorization"))
                status, reply = outer.answer(body, len(outer.bodies))
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def plain(text: str, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason}]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(openai, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-shown")
    served = Endpoint()
    yield served
    served.server.shutdown()


def make_engine(endpoint: Endpoint, api: str = "completions") -> OpenAIEngine:
    recipe = EngineRecipe.model_validate({"kind": "openai", "model": "teacher", "api": api})
    return OpenAIEngine(
        recipe,
        Resources(endpoint=endpoint.url, max_num_seqs=4),
        Weights(directory="", policy_digest="teacher", policy_version=0),
    )


def ask(engine: OpenAIEngine, seed: int, **sampling: Any) -> RolloutRequest:
    return RolloutRequest(
        problem_id="p",
        problem_digest="d",
        prompt=f"question {seed}",
        prompt_digest="plain",
        policy_digest="teacher",
        policy_version=0,
        sampling=Sampling(**{"max_tokens": 8, **sampling}),
        sample_index=seed,
        seed=seed,
        engine_build=engine.build,
    )


def test_prompt_sampling_and_seed_reach_the_endpoint(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, number: (200, plain(f"to {body['prompt']}", "length"))
    engine = make_engine(endpoint)
    request = ask(engine, 3, temperature=0.5, top_p=0.9, stop=("end",))
    ((identity, completion),) = engine.generate([request])
    assert identity == request.id
    assert completion.text == "to question 3"
    assert completion.finish_reason is FinishReason.LENGTH
    assert endpoint.paths == ["/v1/completions"]
    assert endpoint.keys == ["Bearer sk-not-to-be-shown"]
    assert endpoint.bodies == [
        {
            "model": "teacher",
            "max_tokens": 8,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["end"],
            "prompt": "question 3",
        }
    ]


def test_a_chat_reply_with_a_separate_thought_keeps_both(endpoint: Endpoint) -> None:
    message = {"content": "answer", "reasoning_content": "thought"}
    endpoint.answer = lambda body, number: (
        200,
        {"choices": [{"message": message, "finish_reason": "stop"}]},
    )
    engine = make_engine(endpoint, "chat")
    ((_, completion),) = engine.generate([ask(engine, 0)])
    assert completion.text == "<think>\nthought\n</think>\nanswer"
    assert endpoint.bodies[0]["messages"] == [{"role": "user", "content": "question 0"}]


@pytest.mark.parametrize("reply", [(429, {}), (503, {}), (200, b"not json"), (200, {})])
def test_passing_troubles_are_tried_again(endpoint: Endpoint, reply: tuple[int, Any]) -> None:
    endpoint.answer = lambda body, number: reply if number < 3 else (200, plain("fine"))
    engine = make_engine(endpoint)
    ((_, completion),) = engine.generate([ask(engine, 0)])
    assert completion.text == "fine"
    assert len(endpoint.bodies) == 3


def test_a_refusal_is_not_tried_again_and_shows_no_key(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, number: (401, {"error": "sk-not-to-be-shown is wrong"})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match="HTTP 401") as caught:
        list(engine.generate([ask(engine, 0)]))
    assert "sk-not" not in str(caught.value)
    assert len(endpoint.bodies) == 1


def test_an_endpoint_that_stays_down_ends_with_its_cause(endpoint: Endpoint) -> None:
    endpoint.answer = lambda body, number: (500, {})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match="HTTP 500"):
        list(engine.generate([ask(engine, 0)]))
    assert len(endpoint.bodies) == 6


def test_all_of_many_requests_come_back_once(endpoint: Endpoint) -> None:
    engine = make_engine(endpoint)
    requests = [ask(engine, seed) for seed in range(40)]
    ids = [identity for identity, _ in engine.generate(requests)]
    assert sorted(ids) == sorted(request.id for request in requests)


def test_an_engine_without_endpoint_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a model name and an endpoint"):
        OpenAIEngine(
            EngineRecipe(kind="openai", model="m"),
            Resources(),
            Weights(directory="", policy_digest="t", policy_version=0),
        )
