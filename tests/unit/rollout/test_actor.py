"""The actor's own order of commands; no Ray is started."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import pytest

from still_core.rollout import actor
from still_core.rollout.actor import Command, RolloutActor
from still_core.rollout.cluster import ActorPlace
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest, Sampling
from still_core.rollout.weights import Weights

HERE = ActorPlace(pid=1, node="here", node_id="here")


class EchoEngine(Engine):
    """Ends each completion in the next step; its text is the digest of the weights that it had."""

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        super().__init__(recipe, resources, weights)
        self.waiting: list[str] = []

    def _load(self, weights: Weights) -> None:
        pass

    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        self.waiting += [request.id for request in requests]

    def step(self) -> list[Finished]:
        ended, self.waiting = self.waiting, []
        completion = Completion(
            text=self.weights.policy_digest,
            token_ids=(1,),
            logprobs=(-1.0,),
            finish_reason=FinishReason.STOP,
        )
        return [(identity, completion) for identity in ended]

    def abort(self, ids: Iterable[str]) -> None:
        self.waiting = [identity for identity in self.waiting if identity not in set(ids)]

    def pending(self) -> int:
        return len(self.waiting)

    def score(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        raise NotImplementedError


def make_actor(monkeypatch: pytest.MonkeyPatch) -> RolloutActor:
    monkeypatch.setattr(actor, "own_place", lambda: HERE)
    recipe = EngineRecipe(kind="transformers")
    return RolloutActor(EchoEngine, recipe, RolloutResources(), make_weights("a"))


def make_weights(digest: str) -> Weights:
    return Weights(directory="", policy_digest=digest, policy_version=0, handle=None, store_uri="")


def make_request(digest: str) -> RolloutRequest:
    return RolloutRequest(
        problem_id="p",
        problem_digest="d",
        prompt="1+1",
        prompt_digest="plain",
        policy_digest=digest,
        policy_version=0,
        sampling=Sampling(max_tokens=8),
        sample_index=0,
        seed=1,
        engine_build="echo",
    )


def test_commands_that_overtake_each_other_are_carried_out_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = make_actor(monkeypatch)
    here.send(Command(number=1, submit=(make_request("b"),)))
    time.sleep(0.05)
    assert here.collect(0.0).failure == ""
    here.send(Command(number=0, weights=make_weights("b")))
    ((_, completion),) = here.collect(10.0).finished
    assert completion.text == "b"


def test_a_command_goes_with_the_call_for_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    here = make_actor(monkeypatch)
    report = here.collect(10.0, Command(submit=(make_request("a"),)))
    assert [completion.text for _, completion in report.finished] == ["a"]
