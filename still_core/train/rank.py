"""One process of a training job: sets itself up, trains, writes checkpoints and the final model.

Ray hosts one `TrainingRank` per rank; `run` blocks in one thread while `drain` hands events to the
driver from another. Nothing here depends on the size of the model: one process on CPU, two gloo
ranks and many GPUs run the same lines.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from still_core.identity import canonical_json
from still_core.rollout.cluster import ActorPlace, own_place
from still_core.stacks import thread_stacks
from still_core.store import Store
from still_core.store.handle import Handle
from still_core.train.checkpoint import (
    Checkpoint,
    Shards,
    Staged,
    checkpoint_version,
    write_shard,
)
from still_core.train.dpo import dpo_schedule, dpo_trainer, reference_logprobs
from still_core.train.exact import Schedule, write_metrics
from still_core.train.job import DpoJob, SftJob
from still_core.train.recipe import DpoTarget
from still_core.train.rows import (
    PairRow,
    PairRows,
    TokenRows,
    check_rows_are_left,
    tokenise,
    tokenise_pairs,
)
from still_core.train.sft import Place, sft_schedule, sft_trainer
from still_core.train.workspace import work_folder

DRIVER_FIRST_S = 60.0
"""How much longer ranks wait for each other than the driver waits for a step of them: time in which
it collects their stacks."""
MAX_SHARD_SIZE = "5GB"
METRICS_FILE = "metrics.jsonl"
TRAINING_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """An optimiser step was taken (rank 0 tells)."""

    step: int
    total: int
    metrics: dict[str, float]
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class PartPublished:
    """This rank's part of a checkpoint is in the store."""

    rank: int
    step: int
    part: Handle
    blocked_s: float
    """Time that training stood still for the copy and for an earlier save."""


@dataclass(frozen=True, kw_only=True)
class ReferenceForward:
    """A forward of DPO's reference was done, before the first step (rank 0 tells)."""

    done: int
    total: int


Event = StepDone | ReferenceForward | PartPublished


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one rank is told to do."""

    job: SftJob | DpoJob
    job_digest: str
    model_digest: str
    store: Store
    num_ranks: int
    master: str
    """`host:port` at which several ranks meet; empty for one rank."""
    attempt: str
    """Keeps the parts of different attempts apart."""
    resume: Checkpoint | None
    reference: Handle | None
    """Log-probs of a DPO job's start weights, where an earlier life of it published them. All ranks
    must agree on that: who has to compute them computes with the others."""


class TrainingRank:
    """Body of the Ray actor."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def meeting_point(self) -> str:
        """`host:port` of a store that the ranks meet at; this process keeps it until it ends.

        The system chooses the port, and nothing else can take it between here and the meeting.
        """
        import ray
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._meeting = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return f"{host}:{self._meeting.port}"

    def place(self) -> ActorPlace:
        """Where this rank runs."""
        return own_place()

    def stacks(self) -> str:
        """Stacks of all threads of this process."""
        return thread_stacks()

    def drain(self) -> list[Event]:
        """Events since the last call."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def run(self, assignment: Assignment) -> Handle | None:
        """Train to the end; rank 0 publishes the model and returns its handle."""
        self.drain()  # what an earlier job of this process told too late
        try:
            return train_rank(assignment, self.rank, self._tell)
        finally:
            gc.collect()  # trainers refer to themselves, and this process may wait for the next job

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)


def train_rank(assignment: Assignment, rank: int, tell: Callable[[Event], None]) -> Handle | None:
    """All work of one rank; the handle of the published model on rank 0.

    Raises:
        DataError: no row can be trained on.
        CheckpointError: the checkpoint to resume from does not fit the job.
    """
    place = Place(rank=rank, num_ranks=assignment.num_ranks, resources=assignment.job.resources)
    _set_up(assignment, place)
    try:
        with work_folder() as work:
            run = _Run(assignment, place, tell, work)
            return run.train()
    finally:
        _tear_down()


class _Run:
    """State of one rank while it trains; the `StepListener` of the trainer."""

    def __init__(
        self,
        assignment: Assignment,
        place: Place,
        tell: Callable[[Event], None],
        work: Path,
    ) -> None:
        self.assignment, self.place, self.tell, self.work = assignment, place, tell, work
        self.store = assignment.store
        self.saver: threading.Thread | None = None
        self.save_error: Exception | None = None
        self.total = 0

    def train(self) -> Handle | None:
        from transformers import AutoTokenizer
        from transformers.trainer_callback import PrinterCallback

        job = self.assignment.job
        directory = self._model_directory()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = load_model(directory, self.place, dtype=job.recipe.dtype)
        trainer, schedule, facts = self._trainer(model, tokenizer)
        self.total = len(schedule.steps)
        if self.assignment.resume is not None:
            schedule.resume = Shards.open(self.store, self.assignment.resume.parts)
        trainer.remove_callback(PrinterCallback)
        trainer.follow(schedule, self, self.place.rank)
        trainer.train()
        self._wait_for_save()
        return self._publish(trainer, tokenizer, facts)

    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None:
        if self.save_error is not None:
            raise self.save_error
        if self.place.rank == 0:
            self.tell(
                StepDone(
                    step=int(metrics["step"]),
                    total=self.total,
                    metrics=metrics,
                    tokens_per_s=tokens_per_s,
                )
            )

    def on_checkpoint(self, step: int, staging: Callable[[], Staged]) -> None:
        """Copy the state, then write and publish it behind training; one save in flight at most."""
        started = time.perf_counter()
        self._wait_for_save()
        staged = staging()
        blocked = time.perf_counter() - started
        self.saver = threading.Thread(
            target=self._save, args=(step, staged, blocked), name=f"save-{step}", daemon=True
        )
        self.saver.start()

    def _save(self, step: int, staged: Staged, blocked_s: float) -> None:
        directory = self.work / checkpoint_version(step)
        try:
            write_shard(staged, directory)
            part = self.store.publish_dir(
                f"{self.assignment.job.checkpoints_name()}/parts/rank-{self.place.rank}"
                f"-of-{self.place.num_ranks}",
                f"{checkpoint_version(step)}-{self.assignment.attempt}",
                directory,
                meta={"parents": self._parents()},
            )
        except Exception as error:  # told to the training thread, which ends the job with it
            self.save_error = error
        else:
            self.tell(
                PartPublished(rank=self.place.rank, step=step, part=part, blocked_s=blocked_s)
            )
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _wait_for_save(self) -> None:
        if self.saver is not None:
            self.saver.join()
            self.saver = None
        if self.save_error is not None:
            raise self.save_error

    def _model_directory(self) -> Path:
        model = self.assignment.job.model
        if isinstance(model, Handle):
            return self.store.fetch(model)
        return model

    def _trainer(self, model: Any, tokenizer: Any) -> tuple[Any, Schedule, dict[str, Any]]:
        job = self.assignment.job
        if isinstance(job, DpoJob):
            return self._dpo_trainer(job, model, tokenizer)
        table = self.store.read_rows(job.demonstrations)
        rows = tokenise(table, tokenizer, prompt=job.prompt, max_length=job.sft.max_length)
        check_rows_are_left(rows, field="sft.max_length", max_length=job.sft.max_length)
        schedule = sft_schedule(
            rows.rows, job.sft, seed=job.seed, place=self.place, pad_id=_pad_id(tokenizer)
        )
        trainer = sft_trainer(
            model,
            tokenizer,
            rows.rows,
            job.sft,
            num_steps=len(schedule.steps),
            seed=job.seed,
            directory=self.work / "trainer",
            use_cpu=job.resources.gpus_per_rank == 0,
        )
        return trainer, schedule, _facts(rows, schedule)

    def _dpo_trainer(
        self, job: DpoJob, model: Any, tokenizer: Any
    ) -> tuple[Any, Schedule, dict[str, Any]]:
        pad_id = _pad_id(tokenizer)
        rows = tokenise_pairs(
            self.store.read_rows(job.pairs),
            tokenizer,
            prompt=job.prompt,
            max_length=job.dpo.max_length,
            thought_only=job.dpo.target is DpoTarget.THOUGHT,
        )
        check_rows_are_left(rows, field="dpo.max_length", max_length=job.dpo.max_length)
        reference: dict[str, tuple[float, float]] = {}
        schedule = dpo_schedule(
            rows.rows, job.dpo, seed=job.seed, place=self.place, pad_id=pad_id, reference=reference
        )
        trainer = dpo_trainer(
            model,
            tokenizer,
            job.dpo,
            num_steps=len(schedule.steps),
            seed=job.seed,
            directory=self.work / "trainer",
            use_cpu=job.resources.gpus_per_rank == 0,
        )
        reference.update(self._reference(job, trainer, rows.rows, pad_id))
        return trainer, schedule, _facts(rows, schedule)

    def _reference(
        self, job: DpoJob, trainer: Any, rows: list[PairRow], pad_id: int
    ) -> dict[str, tuple[float, float]]:
        """The start weights' log-probs: of an earlier life of this very job, or computed now."""
        kept = self.assignment.reference
        if kept is not None:
            return {
                row["id"]: (row["chosen"], row["rejected"]) for row in self.store.read_rows(kept)
            }
        found = reference_logprobs(
            trainer, rows, place=self.place, pad_id=pad_id, tell=self._on_reference
        )
        if self.place.rank == 0:
            table = [
                {"id": key, "chosen": found[key][0], "rejected": found[key][1]}
                for key in sorted(found)
            ]
            self.store.publish_table(
                job.reference_name(),
                self.assignment.job_digest,
                table,
                meta={"parents": self._parents()},
            )
        return found

    def _on_reference(self, done: int, total: int) -> None:
        if self.place.rank == 0:
            self.tell(ReferenceForward(done=done, total=total))

    def _parents(self) -> list[str]:
        """Digests of what this job reads: its data and its start weights."""
        return [self.assignment.job.data.digest, self.assignment.model_digest]

    def _publish(self, trainer: Any, tokenizer: Any, facts: dict[str, Any]) -> Handle | None:
        job, directory = self.assignment.job, self.work / "model"
        weights = full_weights(trainer.model, dtype=job.recipe.dtype)
        if self.place.rank != 0:
            return None
        write_model(trainer.model, weights, tokenizer, directory)
        write_metrics(trainer.metrics, directory / METRICS_FILE)
        record = {
            "recipe": job.recipe.model_dump(mode="json"),
            "kind": type(job.recipe).__name__,
            "prompt": job.prompt,
            "seed": job.seed,
            "data": job.data.digest,
            "job_digest": self.assignment.job_digest,
            **facts,
        }
        (directory / TRAINING_FILE).write_text(canonical_json(record))
        handle = self.store.publish_dir(
            job.name,
            job.version,
            directory,
            meta={
                "kind": "model",
                "job_digest": self.assignment.job_digest,
                "parents": self._parents(),
                **facts,
            },
        )
        return handle


def _facts(rows: TokenRows | PairRows, schedule: Schedule) -> dict[str, Any]:
    return {
        "rows": len(rows.rows),
        "dropped": rows.dropped,
        "steps": len(schedule.steps),
        "tokens": sum(schedule.tokens),
    }


def load_model(directory: Path, place: Place, *, dtype: str) -> Any:
    """The model in float32 master weights, FSDP2-sharded over the ranks where there are several.

    Each rank then reads only its part of the files. bfloat16 is the type that FSDP2 gathers and
    computes in, or autocast's on one rank.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    if place.num_ranks > 1:
        from transformers.distributed.configuration_utils import DistributedConfig

        options["distributed_config"] = DistributedConfig(
            fsdp_size=place.num_ranks, fsdp_mixed_precision=dtype == "bfloat16"
        )
    model = AutoModelForCausalLM.from_pretrained(directory, **options)
    model.config.use_cache = False
    return model


def full_weights(model: Any, *, dtype: str) -> dict[str, Any]:
    """All weights on rank 0's CPU in the recipe's type (collective); empty on other ranks."""
    import torch
    from torch.distributed.tensor import DTensor

    kept = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            kept[name] = whole.detach().to("cpu", getattr(torch, dtype))
    return kept


def write_model(model: Any, weights: dict[str, Any], tokenizer: Any, directory: Path) -> None:
    """A folder that transformers and vLLM load: safetensors, config, tokenizer, generation."""
    import torch

    # The weights are whole again: the files must not say how they were sharded in training.
    model.config.distributed_config = None
    model.config.use_cache = True
    dtype = next(iter(weights.values())).dtype
    model.config.dtype = dtype
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if tokenizer.eos_token_id not in ends:
        ends = [tokenizer.eos_token_id, *ends]
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.generation_config.pad_token_id = _pad_id(tokenizer)
    assert isinstance(dtype, torch.dtype)
    model.save_pretrained(directory, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    tokenizer.save_pretrained(directory)


def _pad_id(tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)


_MEETING = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")


def _set_up(assignment: Assignment, place: Place) -> None:
    """Threads, determinism and the process group."""
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    resources = place.resources
    torch.set_num_threads(resources.threads_per_rank)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid that comes with it, and fills each new tensor: the buffer of the chunked loss
    # alone takes half of a small model's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}
    if place.num_ranks == 1:
        for name in _MEETING:
            os.environ.pop(name, None)  # of a launcher around us: accelerate would wait for peers
        return
    host, _, port = assignment.master.rpartition(":")
    os.environ |= {  # accelerate asks for all of them
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.num_ranks),
        # Ray shows each rank its own GPU alone, so every rank's local device is number 0.
        "LOCAL_RANK": "0",
    }
    # The driver must lose patience first: it names the rank that is stuck, while those that wait
    # for it know only that they waited.
    longest_s = resources.start_timeout_s + resources.stall_timeout_s
    patience = timedelta(seconds=longest_s + DRIVER_FIRST_S)
    torch.distributed.init_process_group(
        backend="cpu:gloo,cuda:nccl" if resources.gpus_per_rank else "gloo",
        rank=place.rank,
        world_size=place.num_ranks,
        store=TCPStore(host, int(port), is_master=False, timeout=patience),
        timeout=patience,
    )


def _tear_down() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
