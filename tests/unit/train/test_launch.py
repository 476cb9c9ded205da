"""What the driver makes of its ranks' events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from still_core.progress import Progress
from still_core.store import Store
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
