"""One rank's own work around the trainer."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _world
from transformers import AutoModelForCausalLM, AutoTokenizer

from still_core.errors import DataError
from still_core.store import Store
from still_core.train import DpoJob, DpoRecipe, SftJob, SftRecipe
from still_core.train.checkpoint import Piece, Staged
from still_core.train.launch import DEATH_NOTICE_S, _Attempt
from still_core.train.rank import (
    Assignment,
    Event,
    PartPublished,
    TrainingRank,
    _Run,
    _set_up,
    load_model,
)
from still_core.train.recipe import TrainResources
from still_core.train.sft import Place
from tests.unit.train.test_job import JOB


def assigned(store: Store, *, num_ranks: int = 1, master: str = "") -> Assignment:
    return Assignment(
        job=JOB,
        job_digest="job",
        model_digest="model",
        store=store,
        num_ranks=num_ranks,
        master=master,
        attempt="a",
        resume=None,
        reference=None,
    )


def test_a_published_part_of_a_checkpoint_leaves_no_copy_in_the_work_folder(
    tmp_path: Path,
) -> None:
    store, work, told = Store(tmp_path / "store"), tmp_path / "work", list[Event]()
    work.mkdir()
    run = _Run(
        assigned(store), Place(rank=0, num_ranks=1, resources=TrainResources()), told.append, work
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


def test_a_job_whose_rows_are_all_dropped_says_what_dropped_them(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    store, end = Store(tmp_path), "<|im_end|>"
    texts = [{"prompt_text": "1+2?", "completion_text": "9" * 50 + end}] * 3
    sides = {"prompt_text": "1+2?", "chosen_text": "3" + end}
    pairs = [
        {"id": "a", **sides, "rejected_text": "3" + end},
        {"id": "b", **sides, "rejected_text": "9" * 50 + end},
    ]
    sft = replace(
        JOB,
        model=tiny_model_dir,
        demonstrations=store.publish_table("demos", "v1", texts),
        sft=SftRecipe(max_length=40, dtype="float32"),
    )
    dpo = DpoJob(
        model=tiny_model_dir,
        pairs=store.publish_table("pairs", "v1", pairs),
        prompt="bare",
        dpo=DpoRecipe(max_length=40, dtype="float32"),
        seed=0,
        name="m1",
        version="v1",
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)

    def start(job: SftJob | DpoJob) -> None:
        place = Place(rank=0, num_ranks=1, resources=TrainResources())
        run = _Run(replace(assigned(store), job=job), place, list[Event]().append, tmp_path)
        run._trainer(AutoModelForCausalLM.from_pretrained(tiny_model_dir), tokenizer)

    for job, told in (
        (sft, r"got '3 rows, dropped: 3 too_long', .* 40 tokens \(sft.max_length\); raise sft"),
        (dpo, r"got '2 rows, dropped: 1 equal_responses, 1 too_long', .*; raise dpo.max_length"),
    ):
        with pytest.raises(DataError, match=told):
            start(job)
    none = replace(sft, demonstrations=store.publish_table("none", "v1", texts[:0]))
    with pytest.raises(DataError, match=r"got '0 rows, .*; look at the funnel"):
        start(none)


PATIENT = TrainResources(
    num_ranks=2, threads_per_rank=1, start_timeout_s=1_000.0, stall_timeout_s=9_000.0
)


def tell_timeouts(rank: int, port: int, model: Path, folder: Path) -> None:
    """Body of a rank: how long it would wait for the other in each group that both are in, s."""
    place = Place(rank=rank, num_ranks=2, resources=PATIENT)
    _set_up(assigned(Store(folder / "store"), num_ranks=2, master=f"127.0.0.1:{port}"), place)
    load_model(model, place, dtype="float32")
    cpu = torch.device("cpu")
    found = [
        group._get_backend(cpu).options._timeout.total_seconds()
        for group in _world.pg_map
        if group.size() > 1
    ]
    (folder / f"rank-{rank}").write_text(json.dumps(found))


def test_ranks_wait_for_each_other_until_the_driver_has_named_the_stuck_one(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    start = multiprocessing.get_context("spawn").Process
    ranks = [
        start(target=tell_timeouts, args=(rank, meeting.port, tiny_model_dir, tmp_path))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    job = replace(JOB, resources=PATIENT)
    driver = _Attempt(job, Store(tmp_path), ("m", "j"), None, frozenset(), None, 0, "", False)
    for rank in range(2):
        timeouts = json.loads((tmp_path / f"rank-{rank}").read_text())
        assert timeouts
        assert min(timeouts) > driver._patience_s() + DEATH_NOTICE_S
