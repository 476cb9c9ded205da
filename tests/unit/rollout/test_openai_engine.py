"""The engine for OpenAI-compatible endpoints, against a real HTTP server on the loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from still_core.errors import ConfigError, RolloutError
from still_core.rollout.engines import openai
from still_core.rollout.engines.engine import Finished
from still_core.rollout.engines.openai import OpenAIEngine
from still_core.rollout.recipe import EngineRecipe, RolloutResources
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
        self.times: list[float] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.times.append(time.monotonic())
                outer.paths.append(self.path)
                outer.keys.append(self.headers.get("Authorization"))
                status, reply = outer.answer(body, len(outer.bodies))
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def plain(text: str, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason}]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(openai, "_FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(openai, "_LONGEST_BACKOFF_S", 0.05)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-shown")
    served = Endpoint()
    yield served
    served.server.shutdown()


def make_engine(
    endpoint: Endpoint, api: str = "completions", per_minute: float = 0.0
) -> OpenAIEngine:
    recipe = EngineRecipe.model_validate({"kind": "openai", "model": "teacher", "api": api})
    return OpenAIEngine(
        recipe,
        RolloutResources(endpoint=endpoint.url, max_num_seqs=4, requests_per_minute=per_minute),
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


@pytest.mark.parametrize(
    "reply",
    [(429, {}), (503, {}), (408, {}), (409, {}), (425, {}), (200, b"not json"), (200, {})],
)
def test_passing_troubles_are_tried_again(endpoint: Endpoint, reply: tuple[int, Any]) -> None:
    endpoint.answer = lambda body, number: reply if number < 3 else (200, plain("fine"))
    engine = make_engine(endpoint)
    ((_, completion),) = engine.generate([ask(engine, 0)])
    assert completion.text == "fine"
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize("header", ["0.3", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "nan"])
def test_a_throttled_endpoint_is_waited_for_as_long_as_it_asks(
    endpoint: Endpoint, header: str
) -> None:
    # More often than an endpoint may fail: being throttled is no failure.
    endpoint.headers = {"Retry-After": header}
    endpoint.answer = lambda body, number: (429, {}) if number < 9 else (200, plain("fine"))
    engine = make_engine(endpoint)
    started = time.monotonic()
    ((_, completion),) = engine.generate([ask(engine, 0)])
    assert completion.text == "fine"
    if header == "0.3":
        assert time.monotonic() - started >= 8 * 0.3
        assert min(b - a for a, b in pairwise(endpoint.times)) >= 0.29


def test_a_pause_that_one_request_was_asked_for_holds_for_all(endpoint: Endpoint) -> None:
    endpoint.headers = {"Retry-After": "0.5"}
    endpoint.answer = lambda body, number: (503, {}) if number == 1 else (200, plain("fine"))
    engine = make_engine(endpoint)
    list(engine.generate([ask(engine, 0)]))
    assert endpoint.times[1] - endpoint.times[0] >= 0.49


def test_requests_keep_the_rate_limit(endpoint: Endpoint) -> None:
    engine = make_engine(endpoint, per_minute=600)
    assert len(list(engine.generate([ask(engine, seed) for seed in range(8)]))) == 8
    gaps = [b - a for a, b in pairwise(sorted(endpoint.times))]
    assert sum(gaps) >= 7 * 0.1 - 0.05


def test_an_endpoint_that_throttles_for_ever_ends_with_its_cause(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "_THROTTLED_S", 0.3)
    endpoint.answer = lambda body, number: (429, {})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match="HTTP 429"):
        list(engine.generate([ask(engine, 0)]))


def test_one_refused_question_does_not_stop_the_others(endpoint: Endpoint) -> None:
    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (400, {}) if body["prompt"] == "question 1" else (200, plain("fine"))

    endpoint.answer = answer
    engine = make_engine(endpoint)
    list(engine.generate([ask(engine, 0)]))
    found = dict(engine.generate([ask(engine, 1), ask(engine, 2)]))
    refused, fine = found[ask(engine, 1).id], found[ask(engine, 2).id]
    assert (refused.text, refused.finish_reason) == ("", FinishReason.ABORT)
    assert fine.text == "fine"


def drain(engine: OpenAIEngine) -> Iterator[Finished]:
    while engine.pending():
        yield from engine.step()


def wait_for_posts(endpoint: Endpoint, count: int) -> None:
    give_up = time.monotonic() + 10
    while len(endpoint.bodies) < count and time.monotonic() < give_up:
        time.sleep(0.01)
    assert len(endpoint.bodies) == count


def test_a_question_refused_before_any_answer_waits_for_one(endpoint: Endpoint) -> None:
    gate = threading.Event()

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if body["prompt"] == "question 0":
            return 400, {"error": "too long"}
        gate.wait(10)
        return 200, plain("fine")

    endpoint.answer = answer
    engine = make_engine(endpoint)
    requests = [ask(engine, seed) for seed in range(4)]
    engine.submit(requests)
    wait_for_posts(endpoint, 4)
    for _ in range(3):
        assert engine.step() == []
    assert engine.pending() == 4
    gate.set()
    found = list(drain(engine))
    assert {identity: completion.text for identity, completion in found} == {
        request.id: "fine" if request.seed else "" for request in requests
    }
    assert len(found) == 4


def test_an_endpoint_that_refuses_all_ends_with_what_it_says_of_the_first(
    endpoint: Endpoint,
) -> None:
    endpoint.answer = lambda body, number: (400, {"error": {"message": "no such parameter"}})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match=r"refused all 4 .*problem p: .*no such parameter"):
        list(engine.generate([ask(engine, seed) for seed in range(4)]))
    assert len(endpoint.bodies) == 4


@pytest.mark.parametrize(("questions", "ends"), [(1, False), (15, False), (16, True)])
def test_sixteen_questions_refused_before_any_answer_end_the_engine_but_no_sixteen_attempts(
    endpoint: Endpoint, questions: int, ends: bool
) -> None:
    gate = threading.Event()

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if body["prompt"].startswith("refused"):
            return 422, {"detail": [{"msg": "too long"}]}
        gate.wait(10)
        return 200, plain("fine")

    endpoint.answer = answer
    engine = make_engine(endpoint)
    slow = [ask(engine, seed) for seed in range(3)]
    engine.submit(slow)
    engine.submit(
        [replace(ask(engine, 3 + k), prompt=f"refused {k % questions}") for k in range(16)]
    )
    wait_for_posts(endpoint, 19)
    try:
        if ends:
            with pytest.raises(RolloutError, match=r"refused all 16 .*too long"):
                list(drain(engine))
            return
        for _ in range(3):
            assert engine.step() == []
    finally:
        gate.set()
    texts = [completion.text for _, completion in drain(engine)]
    assert sorted(texts) == [""] * 16 + ["fine"] * 3


def test_a_question_that_is_cut_while_it_is_put_aside_is_forgotten(endpoint: Endpoint) -> None:
    gate = threading.Event()

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if body["prompt"] == "question 0":
            return 400, {}
        gate.wait(10)
        return 200, plain("fine")

    endpoint.answer = answer
    engine = make_engine(endpoint)
    engine.submit([ask(engine, 0), ask(engine, 1)])
    wait_for_posts(endpoint, 2)
    for _ in range(3):
        engine.step()
    engine.abort([ask(engine, 0).id])
    gate.set()
    assert [identity for identity, _ in drain(engine)] == [ask(engine, 1).id]


def test_answers_that_end_beside_a_failure_come_out_before_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (401, {}) if body["prompt"] == "question 0" else (200, plain("fine"))

    # All end in one step.
    monkeypatch.setattr(openai, "wait", lambda pending, **limits: futures.wait(pending))
    endpoint.answer = answer
    engine = make_engine(endpoint)
    found = []
    engine.submit([ask(engine, seed) for seed in range(3)])
    with pytest.raises(RolloutError, match="HTTP 401"):
        found.extend(drain(engine))
    assert sorted(identity for identity, _ in found) == sorted(
        ask(engine, seed).id for seed in (1, 2)
    )


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "at most 4096\ntokens for sk-not-to-be-shown", "code": 400}},
        {"message": "at most 4096 tokens"},
        {"detail": "at most 4096 tokens " + "and so on " * 1_000},
        {"error": "at most 4096 tokens"},
        b"at most 4096 tokens, says sk-not-to-be-shown",
    ],
)
@pytest.mark.parametrize("status", [400, 404, 500])
def test_the_gist_of_a_refusal_is_shown_on_one_short_line_without_the_key(
    endpoint: Endpoint, status: int, body: Any
) -> None:
    endpoint.answer = lambda asked, number: (status, body)
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match=f"HTTP {status}: at most 4096 tokens") as caught:
        list(engine.generate([ask(engine, 0)]))
    line = str(caught.value)
    assert "sk-not" not in line
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize("body", [b"", b"[" * 60_000, b"null", {"error": None}, b"\xff\x1b[2J"])
def test_a_body_without_a_gist_hides_no_status(endpoint: Endpoint, body: Any) -> None:
    endpoint.answer = lambda asked, number: (400, body)
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match="HTTP 400") as caught:
        list(engine.generate([ask(engine, 0)]))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["sk-not-to-be-shown\n", "sk-not\nto-be-shown"])
def test_a_key_of_more_than_one_line_is_not_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    engine = make_engine(endpoint)
    if key.endswith("\n"):
        list(engine.generate([ask(engine, 0)]))
        assert endpoint.keys == ["Bearer sk-not-to-be-shown"]
        return
    with pytest.raises(RolloutError, match="Invalid header value") as caught:
        list(engine.generate([ask(engine, 0)]))
    assert "sk-not" not in str(caught.value)
    assert "to-be-shown" not in str(caught.value)


def test_a_thought_cut_by_the_limit_stays_open(endpoint: Endpoint) -> None:
    message = {"content": None, "reasoning_content": "and then \ud800"}
    endpoint.answer = lambda body, number: (
        200,
        {"choices": [{"message": message, "finish_reason": "length"}]},
    )
    engine = make_engine(endpoint, "chat")
    ((_, completion),) = engine.generate([ask(engine, 0)])
    assert completion.text == "<think>\nand then ?"
    assert completion.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again_and_no_part_of_it_is_shown(
    endpoint: Endpoint, status: int
) -> None:
    endpoint.answer = lambda body, number: (status, {"error": "sk-not-t*****own is wrong"})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match=f"HTTP {status}") as caught:
        list(engine.generate([ask(engine, 0)]))
    assert "sk-not" not in str(caught.value)
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("status", [500, 408, 409, 425])
def test_an_endpoint_that_stays_down_ends_with_its_cause(endpoint: Endpoint, status: int) -> None:
    endpoint.answer = lambda body, number: (status, {})
    engine = make_engine(endpoint)
    with pytest.raises(RolloutError, match=f"HTTP {status}"):
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
            RolloutResources(),
            Weights(directory="", policy_digest="t", policy_version=0),
        )
