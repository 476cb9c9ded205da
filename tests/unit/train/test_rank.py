"""One rank's own work around the trainer."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
import torch

from still_core.store import Store
from still_core.train.checkpoint import Piece, Staged
from still_core.train.rank import Assignment, Event, PartPublished, TrainingRank, _Run
from still_core.train.recipe import TrainResources
from still_core.train.sft import Place
from tests.unit.train.test_job import JOB


def test_a_published_part_of_a_checkpoint_leaves_no_copy_in_the_work_folder(
    tmp_path: Path,
) -> None:
    store, work, told = Store(tmp_path / "store"), tmp_path / "work", list[Event]()
    work.mkdir()
    assignment = Assignment(
        job=JOB,
        job_digest="job",
        model_digest="model",
        store=store,
        num_ranks=1,
        master="",
        attempt="a",
        resume=None,
        reference=None,
    )
    run = _Run(
        assignment, Place(rank=0, num_ranks=1, resources=TrainResources()), told.append, work
    )
    weights = torch.ones(2)
    run.on_checkpoint(
        3,
        lambda: Staged(
            tensors={"w": weights},
            pieces={"w": Piece(shape=(2,), offset=(0,), size=(2,))},
            rng={},
            state={"step": 3},
        ),
    )
    run._wait_for_save()
    (published,) = told
    assert isinstance(published, PartPublished)
    assert store.exists(published.part)
    assert list(work.iterdir()) == []


def test_nothing_can_take_the_port_that_the_ranks_were_told_to_meet_at() -> None:
    rank = TrainingRank(0)
    port = int(rank.meeting_point().rpartition(":")[2])
    in_use = os.strerror(errno.EADDRINUSE)
    dual = socket.has_dualstack_ipv6()
    family, host = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "")
    with socket.socket(family) as other, pytest.raises(OSError, match=in_use):
        other.bind((host, port))
