"""What the driver makes of its ranks' events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import ray

from still_core.errors import DataError
from still_core.progress import Progress
from still_core.store import Store
from still_core.train import DpoJob, DpoRecipe, train
from still_core.train.launch import _Attempt
from still_core.train.rank import PartPublished, StepDone
from still_core.train.recipe import TrainResources
from tests.unit.train.test_job import JOB, MODEL


def test_steps_tell_the_longest_time_that_a_save_stopped_training(tmp_path: Path) -> None:
    heard = list[Progress]()
    job = replace(JOB, resources=TrainResources(num_ranks=2))
    attempt = _Attempt(job, Store(tmp_path), ("m", "j"), None, set(), heard.append, 0, "", False)
    step = StepDone(step=1, total=4, metrics={"step": 1.0, "loss": 2.0}, tokens_per_s=10.0)
    saved = PartPublished(rank=0, step=1, part=MODEL, blocked_s=0.25)
    attempt._take_all([step, saved, step, replace(saved, step=2, blocked_s=0.125), step])
    assert [progress.facts.get("save_blocked_s") for progress in heard] == [None, 0.25, 0.25]


def test_a_table_that_can_not_be_trained_on_is_refused_before_a_rank_starts(tmp_path: Path) -> None:
    ray.shutdown()  # an earlier test's
    store = Store(tmp_path)
    twins = [{"id": "p", "prompt_text": "?", "chosen_text": "a", "rejected_text": "b"}] * 2
    pairs = DpoJob(
        model=MODEL,
        pairs=store.publish_table("pairs", "v1", twins),
        prompt="bare",
        dpo=DpoRecipe(),
        seed=0,
        name="m1",
        version="v1",
    )
    with pytest.raises(DataError, match="two pairs have the id p"):
        train(pairs, store)
    nulls = store.publish_table("nulls", "v1", [{"id": "d", "prompt_text": None}])
    with pytest.raises(DataError, match="row d has no completion_text"):
        train(replace(JOB, demonstrations=nulls), store)
    assert not ray.is_initialized()
