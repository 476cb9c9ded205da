"""The order of an actor's commands, completions and failure; no Ray is started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from still_core.rollout import actor
from still_core.rollout.actor import Command, RolloutActor
from still_core.rollout.cluster import ActorPlace
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.rollout.weights import Weights
from tests.fixtures.faulty_engine import FaultyEngine, expected_text, write_faults

HERE = ActorPlace(pid=1, node="here", node_id="here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RolloutActor:
    """An actor in this process; its engine refuses requests for other weights than it holds."""
    return make_actor(tmp_path, monkeypatch)


def make_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RolloutActor:
    monkeypatch.setattr(actor, "own_place", lambda: HERE)
    recipe = EngineRecipe(kind="transformers")
    return RolloutActor(FaultyEngine, recipe, RolloutResources(), make_weights(tmp_path, "a"))


def make_weights(directory: Path, digest: str) -> Weights:
    return Weights(directory=str(directory), policy_digest=digest, policy_version=0)


def make_request(digest: str, seed: int = 1) -> RolloutRequest:
    return RolloutRequest(
        problem_id="p",
        problem_digest="d",
        prompt="1+1",
        prompt_digest="plain",
        policy_digest=digest,
        policy_version=0,
        sampling=Sampling(max_tokens=8),
        sample_index=0,
        seed=seed,
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


class OnceReleased(threading.Condition):
    """Calls `then` when its lock is released for the first time."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then: Callable[[], None] | None = then

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)
        then, self._then = self._then, None
        if then is not None:
            then()


def test_a_failure_is_reported_with_all_that_finished_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_faults(tmp_path, ["raise:2"])
    here = make_actor(tmp_path, monkeypatch)
    first, second = (make_request("a", seed=seed) for seed in (4, 5))

    def finish_one_and_fail() -> None:
        here.send(Command(submit=(first, second)))
        here._thread.join(10)
        assert not here._thread.is_alive()

    # The engine works and ends right after the call has taken what there was: nothing.
    here._news = OnceReleased(finish_one_and_fail)
    report = here.collect(0.0)
    assert (report.finished, report.failure) == ((), "")
    assert report.phase != "failed"
    assert here.health().failure == ""
    report = here.collect(10.0)
    assert [identity for identity, _ in report.finished] == [first.id]
    assert "planned failure of a step" in report.failure
    assert here.health().failure == report.failure
