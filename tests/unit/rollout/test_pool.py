"""What a rollout pool tells other threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from still_core.rollout.actor import Report
from still_core.rollout.cluster import ActorPlace
from still_core.rollout.pool import RolloutPool, _Worker
from still_core.rollout.recipe import EngineRecipe, RolloutResources


class Replaced(_Worker):
    """A worker that loses its report, as one that is replaced, between two looks at it."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == "report":
            self.report = None
        return found


def test_a_worker_that_is_replaced_while_it_is_asked_for_is_told_of(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    pool = RolloutPool(
        tmp_path,
        EngineRecipe(kind="transformers"),
        RolloutResources(num_actors=1),
        policy_digest="policy",
    )
    report = Report(
        finished=(),
        phase="generating",
        failure="",
        policy_digest="policy",
        steps=1,
        place=ActorPlace(pid=7, node="n1", node_id="a"),
    )
    pool._workers.append(Replaced(name="rollout-0", report=report))
    (before,), (after,) = pool.health(), pool.health()
    assert (before.pid, before.node, before.phase) == (7, "n1", "generating")
    assert (after.pid, after.node, after.phase) == (0, "", "waiting for resources")
