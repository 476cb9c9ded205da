"""Candidates in the markup of their prompt, whose perplexity is read off their rollouts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from still_core.errors import DataError
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.refine.recipe import PerplexitySource
from still_core.responses.prompts import prompt
from still_core.responses.response import Response
from still_core.rollout.candidates import candidates_of
from still_core.rollout.rollout import FinishReason, Rollout
from still_core.store import Store
from still_core.store.bundle import publish_tables
from still_core.train.recipe import TrainResources

PROBLEM = Problem(
    id="s/0",
    statement="What is 1+1?",
    gold="2",
    kind=AnswerKind.MATH,
    domain="math",
    bucket=Bucket.HARD_MATH,
    source="s",
    row=0,
)


def rollout(
    number: int, logprobs: tuple[float, ...], text: str = "", asked: str = "bare"
) -> Rollout:
    response = Response(thought="one and one", solution="So \\boxed{2}.")
    return Rollout(
        id=f"r{number}",
        problem_id=PROBLEM.id,
        problem_digest=PROBLEM.digest,
        policy_digest="p",
        policy_version=1,
        prompt_digest="q",
        sampling_digest="s",
        engine_build="e",
        sample_index=number,
        seed=0,
        text=text or prompt(asked).render_response(response),
        token_ids=tuple(range(len(logprobs))),
        logprobs=logprobs,
        finish_reason=FinishReason.STOP,
        outcome="correct",
    )


@pytest.mark.parametrize("asked", ["bare", "still-3-short", "still-3-long"])
def test_perplexity_is_read_off_the_samplers_log_probs(
    asked: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    policy = store.publish_dir("model", "1", tiny_model_dir)
    unread = Response(thought="one and one", solution="2")
    other = prompt("still-2" if asked != "bare" else "still-3-short").render_response(unread)
    rollouts = [
        rollout(0, (math.log(0.5), math.log(0.125)), asked=asked),
        rollout(1, (0.0,), text=other),
    ]
    tables = {"selected": [one.to_row() for one in rollouts]}
    exploration = publish_tables(store, "explore", "1", tables)

    def read(version: str) -> list[float | None]:
        found = store.find("explore", version)
        assert found is not None
        rows, funnel = candidates_of(
            store,
            found,
            [PROBLEM],
            policy,
            prompt=asked,
            round=1,
            dtype="float32",
            resources=TrainResources(),
            perplexity_source=PerplexitySource.ROLLOUT,
        )
        assert sum(funnel.steps[0].dropped.values()) == 1
        assert [row.num_thought_tokens for row in rows] == [len("one and one")]
        return [row.perplexity for row in rows]

    assert read(exploration.version) == [pytest.approx(4.0)]
    bare = {"selected": [rollout(0, (), asked=asked).to_row(), rollouts[1].to_row()]}
    publish_tables(store, "explore", "2", bare)
    with pytest.raises(DataError, match="without tokens"):
        read("2")
