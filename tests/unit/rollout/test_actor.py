"""The order in which an actor carries out commands; no Ray is started."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from still_core.rollout import actor
from still_core.rollout.actor import Command, RolloutActor
from still_core.rollout.cluster import ActorPlace
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.rollout.weights import Weights
from tests.fixtures.faulty_engine import FaultyEngine, expected_text

HERE = ActorPlace(pid=1, node="here", node_id="here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RolloutActor:
    """An actor in this process; its engine refuses requests for other weights than it holds."""
    monkeypatch.setattr(actor, "own_place", lambda: HERE)
    recipe = EngineRecipe(kind="transformers")
    return RolloutActor(FaultyEngine, recipe, RolloutResources(), make_weights(tmp_path, "a"))


def make_weights(directory: Path, digest: str) -> Weights:
    return Weights(directory=str(directory), policy_digest=digest, policy_version=0)


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
    here: RolloutActor, tmp_path: Path
) -> None:
    request = make_request("b")
    here.send(Command(number=1, submit=(request,)))
    time.sleep(0.05)
    assert here.collect(0.0).failure == ""
    here.send(Command(number=0, weights=make_weights(tmp_path, "b")))
    report = here.collect(10.0)
    assert report.failure == ""
    assert [completion.text for _, completion in report.finished] == [expected_text(request)]


def test_a_command_goes_with_the_call_for_completions(here: RolloutActor) -> None:
    request = make_request("a")
    report = here.collect(10.0, Command(submit=(request,)))
    assert [completion.text for _, completion in report.finished] == [expected_text(request)]
