"""What our trainers add to TRL's: planned batches, exact resume, steps with bad gradients left out.

`ExactTraining` is mixed into a TRL trainer. The trainer keeps its loss, optimiser, schedule and
clipping; the mixin gives it each step's micro-batches as one item, restores a checkpoint before
the first step, and tells its host about every step. It overrides hooks of transformers 5.19's
`Trainer` (pinned by the lock file); tests hold the result to the unmodified trainer.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from still_core.errors import TrainingError, explain
from still_core.train.checkpoint import Shards, Staged, restore, stage

if TYPE_CHECKING:
    import torch

SHARE = "share"
"""Key of a micro-batch: its share of the step's rows, times the ranks that gradients are averaged
over. Weighs losses that are means over rows (DPO); sums over tokens (SFT) need none."""
MAX_SKIPPED_IN_A_ROW = 10
"""Steps with NaN or infinite gradients that are left out before the job is given up."""


class StepListener(Protocol):
    """What hosts a trainer: reports steps and takes checkpoints."""

    def on_step(self, metrics: dict[str, float], tokens_per_s: float) -> None:
        """After each optimiser step."""

    def on_checkpoint(self, step: int, staging: Callable[[], Staged]) -> None:
        """When a checkpoint is due; `staging` copies the state."""


@dataclass(kw_only=True)
class Schedule:
    """All steps of one rank, and where to start."""

    steps: Sequence[Sequence[Sequence[int]]]
    """[step][micro-batch][row]"""
    collate: Callable[[Sequence[int]], dict[str, Any]]
    """Rows of a micro-batch -> model inputs; an empty one gives a batch without targets."""
    tokens: Sequence[int]
    """[step] tokens of all ranks, prompts included, padding not."""
    num_rows: Sequence[int]
    """[step] rows of all ranks."""
    num_ranks: int
    checkpoint_every: int = 0
    resume: Shards | None = None


class StepLoader:
    """Iterates over the steps that remain; its length is that of the whole run."""

    def __init__(self, schedule: Schedule, first_step: int) -> None:
        self.schedule, self.first_step = schedule, first_step

    def __len__(self) -> int:
        return len(self.schedule.steps)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        schedule = self.schedule
        for step in range(self.first_step, len(schedule.steps)):
            share = schedule.num_ranks / schedule.num_rows[step]
            yield [
                {**schedule.collate(rows), SHARE: len(rows) * share}
                for rows in schedule.steps[step]
            ]


@dataclass(kw_only=True)
class History:
    """Metrics of every step so far; part of the checkpoint, so that a resumed run's are whole."""

    rows: list[dict[str, float | None]] = field(default_factory=list)
    """None for a figure that is NaN or infinite: JSON has neither."""
    skipped_in_a_row: int = 0


class ExactTraining:
    """Mixin before a TRL trainer class; call `follow` before `train`."""

    def follow(self, schedule: Schedule, listener: StepListener, rank: int) -> None:
        """Set the steps to run and who hears of them."""
        self._schedule, self._listener, self._rank = schedule, listener, rank
        self._history = History()
        self._first_step = 0
        self._step_started = time.perf_counter()
        self._skip_step = False
        if schedule.resume is not None:
            state = schedule.resume.state
            self._first_step = int(state["step"])
            self._history.rows = list(state["metrics"])
            skipped = takewhile(lambda row: row["skipped"], reversed(self._history.rows))
            self._history.skipped_in_a_row = sum(1 for _ in skipped)

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        """One row per step, the steps before a resume included; None for what was not finite."""
        return self._history.rows

    # -- hooks of transformers.Trainer ---------------------------------------------------------

    def get_train_dataloader(self) -> StepLoader:
        return StepLoader(self._schedule, self._first_step)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        flat = [inputs for micro_batches in batch_samples for inputs in micro_batches]
        return super()._get_num_items_in_batch(flat, device)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: list[dict[str, Any]], num_items: Any = None) -> Any:
        """Forward and backward of all micro-batches of one step; returns the step's loss."""
        total, sums = None, _Sums()
        for micro_batch in inputs:
            share = micro_batch.pop(SHARE)
            # The trainer divides losses that are means by this number.
            self.current_gradient_accumulation_steps: float = 1.0 / share if share else math.inf
            weights = {TOKENS: _num_targets(micro_batch) if share else 0, PAIRS: share}
            with _figures_of_this_rank(self.accelerator):  # type: ignore[attr-defined]
                loss = super().training_step(model, micro_batch, num_items)  # type: ignore[misc]
            sums.add(self._metrics["train"], weights)  # type: ignore[attr-defined]
            total = loss if total is None else total + loss
        # TRL logs the mean of what stands here.
        means = sums.means(self._schedule.num_ranks, self.args.device)  # type: ignore[attr-defined]
        self._metrics["train"] |= {key: [mean] for key, mean in means.items()}  # type: ignore[attr-defined]
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: `plan_memory` says what a run costs."""
        return 0

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)  # type: ignore[misc]
        shards = self._schedule.resume
        if shards is not None:
            self._restore(shards)
        self._step_started = time.perf_counter()
        return prepared

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip; where the norm is not finite, drop the gradients: AdamW then changes nothing."""
        norm: torch.Tensor = super()._clip_grad_norm(model)  # type: ignore[misc]
        plain = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self._skip_step = not math.isfinite(float(plain))
        if self._skip_step:
            model.zero_grad(set_to_none=True)
        return plain

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # type: ignore[misc]
        if "loss" in logs:
            # The trainer starts a step's sum by subtracting the last one from itself: once not
            # finite, it would stay so in all later steps.
            self._tr_loss.zero_()  # type: ignore[attr-defined]
            self._after_step(logs)

    # -- our own --------------------------------------------------------------------------------

    def _after_step(self, logs: dict[str, float]) -> None:
        step = int(self.state.global_step)  # type: ignore[attr-defined]
        row = {
            "step": step,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": float(logs["learning_rate"]),
            "tokens": self._schedule.tokens[step - 1],
            "skipped": int(self._skip_step),
        }
        if "mean_token_accuracy" in logs:
            row["token_accuracy"] = float(logs["mean_token_accuracy"])
        row |= {key: float(logs[key]) for key in PREFERENCE_METRICS if key in logs}
        self._history.rows.append(
            {key: value if math.isfinite(value) else None for key, value in row.items()}
        )
        self._check_progress(step)
        now = time.perf_counter()
        rate = row["tokens"] / max(now - self._step_started, 1e-9)
        self._step_started = now
        self._listener.on_step(row, rate)
        every = self._schedule.checkpoint_every
        if every and step % every == 0 and step < len(self._schedule.steps):
            self._listener.on_checkpoint(step, self._stage)

    def _check_progress(self, step: int) -> None:
        self._history.skipped_in_a_row = (
            self._history.skipped_in_a_row + 1 if self._skip_step else 0
        )
        if self._history.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                explain(
                    f"no finite gradient in {MAX_SKIPPED_IN_A_ROW} steps up to step {step}",
                    remedy="lower the learning rate or look at the data",
                )
            )

    def _stage(self) -> Staged:
        optimizer = _inner(self.optimizer)  # type: ignore[attr-defined]
        model = self.model_wrapped  # type: ignore[attr-defined]
        names = {id(p): name for name, p in model.named_parameters()}
        steps = {
            names[id(p)]: float(moments["step"])
            for p, moments in optimizer.state.items()
            if moments
        }
        state = {
            "step": int(self.state.global_step),  # type: ignore[attr-defined]
            "scheduler": _plain_state(self.lr_scheduler),  # type: ignore[attr-defined]
            "adam_steps": steps,
            # A copy: the state is written while the next steps add their rows.
            "metrics": list(self._history.rows),
        }
        return stage(model, optimizer, rank=self._rank, state=state)

    def _restore(self, shards: Shards) -> None:
        import torch

        optimizer = _inner(self.optimizer)  # type: ignore[attr-defined]
        restore(shards, self.model_wrapped, optimizer)  # type: ignore[attr-defined]
        state = shards.state
        scheduler = self.lr_scheduler  # type: ignore[attr-defined]
        scheduler.load_state_dict({**scheduler.state_dict(), **state["scheduler"]})
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        self.state.global_step = self._first_step  # type: ignore[attr-defined]
        # `_inner_training_loop` reads this right after `_prepare_for_training`, so that losses are
        # averaged over the steps since here and not since step 0.
        self._globalstep_last_logged = self._first_step
        rng = shards.rng(self._rank)
        if "torch" in rng:
            torch.set_rng_state(rng["torch"])
        if torch.cuda.is_available() and "cuda" in rng:
            torch.cuda.set_rng_state(rng["cuda"])
        shards.close()


PREFERENCE_METRICS = ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")
"""Extra figures that TRL's DPOTrainer logs: means over pairs."""
TOKENS, PAIRS = "tokens", "pairs"
"""What a figure is a mean over."""
_MEAN_OVER = {"mean_token_accuracy": TOKENS, **dict.fromkeys(PREFERENCE_METRICS, PAIRS)}


class _Sums:
    """TRL's figures of a step's forwards, weighed by what each is a mean over.

    TRL would take the mean over forwards, which depends on how the rows were cut into them.
    """

    def __init__(self) -> None:
        self._sums = dict.fromkeys(_MEAN_OVER, 0.0)
        self._weights = dict.fromkeys(_MEAN_OVER, 0.0)

    def add(self, figures: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> None:
        """Add the last forward's; of weight 0 where nothing is trained on."""
        for key, over in _MEAN_OVER.items():
            if figures.get(key) and weights[over]:
                self._sums[key] += weights[over] * figures[key][-1]
                self._weights[key] += weights[over]

    def means(self, num_ranks: int, device: Any) -> dict[str, float]:
        """Of all ranks (collective); a figure that no rank has is left out."""
        import torch

        both = torch.tensor(
            [[*self._sums.values()], [*self._weights.values()]], device=device, dtype=torch.float64
        )
        if num_ranks > 1:
            torch.distributed.all_reduce(both)
        found = zip(_MEAN_OVER, *both.tolist(), strict=True)
        return {key: total / weight for key, total, weight in found if weight}


@contextlib.contextmanager
def _figures_of_this_rank(accelerator: Any) -> Iterator[None]:
    """Keep TRL from gathering a forward's figures: ranks may hold unequal numbers of pairs in it,
    and tensors of unequal shapes can not be gathered."""
    accelerator.gather = accelerator.gather_for_metrics = lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def _num_targets(micro_batch: Mapping[str, Any]) -> int:
    """Tokens that TRL's token accuracy is over: of responses, or of the chosen ones."""
    if "completion_mask" in micro_batch:
        return int(micro_batch["completion_mask"].chunk(2)[0][:, 1:].sum())
    return int((micro_batch["labels"][:, 1:] >= 0).sum())


def _inner(optimizer: Any) -> Any:
    """The torch optimiser inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _plain_state(scheduler: Any) -> dict[str, Any]:
    state = scheduler.state_dict()
    return {
        key: state[key]
        for key in ("last_epoch", "_step_count", "_last_lr", "base_lrs")
        if key in state
    }


def write_metrics(rows: Sequence[dict[str, float | None]], path: Path) -> None:
    """One JSON object per line; figures that do not depend on the clock.

    Raises:
        ValueError: a figure is NaN or infinite.
    """
    import json

    lines = [json.dumps(row, sort_keys=True, allow_nan=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
