"""Perplexity of many responses on the resources of a training job.

rows -> in this process on CPU | shards, one Ray task a rank on its GPU -> perplexity of each row
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from still_core.progress import Progress, ProgressListener
from still_core.refine.perplexity import perplexities
from still_core.store import Handle, Store
from still_core.train.recipe import TrainResources


def score_responses(
    store: Store,
    model: Handle,
    token_ids: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    *,
    dtype: str,
    resources: TrainResources,
    progress: ProgressListener | None = None,
) -> list[float]:
    """Perplexity of each response given its prompt under a stored model, in the order of the rows.

    A rank's GPU holds the whole model: 65 GB at 32B parameters in bfloat16. On any number of ranks
    the figures agree to rounding.

    Args:
        store: where the model is.
        model: the model to score with.
        token_ids: prompt + response of each row.
        prompt_lengths: tokens of each row's prompt.
        dtype: compute type, as in `perplexities`.
        resources: ranks and their GPUs; a task that dies is repeated `max_failures` times.
        progress: told as rows are done.

    Raises:
        DataError: a row has no prompt or no response token.
    """
    if not resources.gpus_per_rank:
        folder = store.fetch(model)
        return perplexities(folder, token_ids, prompt_lengths, dtype=dtype, progress=progress)
    import ray

    from still_core.rollout.cluster import connect

    connect()
    remote = ray.remote(
        num_cpus=resources.cpus_per_rank,
        num_gpus=resources.gpus_per_rank,
        max_retries=resources.max_failures,
    )(_score_shard)
    shards = _shards([len(ids) for ids in token_ids], resources.num_ranks)
    waiting: dict[Any, list[int]] = {
        remote.remote(
            store, model, [token_ids[i] for i in shard], [prompt_lengths[i] for i in shard], dtype
        ): shard
        for shard in shards
    }
    found = [0.0] * len(token_ids)
    done = 0
    while waiting:
        (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
        shard = waiting.pop(ready)
        for row, value in zip(shard, ray.get(ready), strict=True):
            found[row] = value
        done += len(shard)
        if progress is not None:
            total = len(token_ids)
            progress(Progress(stage="perplexity", done=done, total=total, unit="responses"))
    return found


def _shards(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Rows dealt out by length, so that each rank gets like work."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    count = min(len(order), num_ranks)
    return [order[place::count] for place in range(count)]


def _score_shard(
    store: Store,
    model: Handle,
    token_ids: list[Sequence[int]],
    prompt_lengths: list[int],
    dtype: str,
) -> list[float]:
    """One rank's rows on its own GPU; on CPU where Ray's GPU is one on paper (tests)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return perplexities(store.fetch(model), token_ids, prompt_lengths, dtype=dtype, device=device)
