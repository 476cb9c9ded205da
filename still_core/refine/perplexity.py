"""Perplexity of responses under a model: how hard the model finds them (STILL-2 section 2.3).

token ids -> sorted by length -> batches of like length -> hidden states -> chunked log-softmax
-> mean negative log-likelihood of the response tokens -> exp

Rows of a batch have nearly one length, so little is padded; they are padded on the right, where
causal attention never looks, so no mask is needed and the fast kernels run. The vocabulary's
logits exist for one chunk of response tokens at a time and never for prompt tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from still_core.errors import DataError, explain
from still_core.progress import Progress, ProgressListener

if TYPE_CHECKING:
    import torch

MAX_BATCH_TOKENS = 8_192
"""Tokens of one forward; a longer row stands alone."""
LEAST_FILL = 0.9
"""Shortest row of a batch as a share of its longest: bounds padding to a tenth."""
CHUNK_LOGITS = 1 << 24
"""Logits that exist at a time: 64 MB in float32."""


def perplexities(
    model: Path | str | torch.nn.Module,
    token_ids: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    *,
    dtype: str = "float32",
    device: str = "cpu",
    max_batch_tokens: int = MAX_BATCH_TOKENS,
    progress: ProgressListener | None = None,
) -> list[float]:
    """Perplexity of each response given its prompt, in the order of the rows, each >= 1.

    exp(-(1/R) sum_i log p(response_i | prompt, response_<i)) over the R response tokens, the
    end-of-sequence token included where the row holds it.

    Args:
        model: folder of a causal language model, or the model itself.
        token_ids: prompt + response of each row.
        prompt_lengths: tokens of each row's prompt, >= 1: nothing predicts the first token.
        dtype: compute type, `float32` or `bfloat16`; log-softmax is float32 always.
        device: torch device.
        max_batch_tokens: most tokens of one forward, padding included.
        progress: told after each batch.

    Raises:
        DataError: a row has no prompt or no response token.
    """
    import torch

    _check(token_ids, prompt_lengths)
    ready = _ready(model, dtype, device)
    results = [math.nan] * len(token_ids)
    total, done = len(token_ids), 0
    with torch.inference_mode():
        for batch in length_batches([len(ids) for ids in token_ids], max_batch_tokens):
            means = _batch_nll(
                ready, [token_ids[i] for i in batch], [prompt_lengths[i] for i in batch], device
            )
            for row, mean in zip(batch, means, strict=True):
                results[row] = math.exp(mean) if mean < 700.0 else math.inf
            done += len(batch)
            if progress is not None:
                progress(Progress(stage="perplexity", done=done, total=total, unit="responses"))
    return results


def rollout_perplexity(logprobs: Sequence[float]) -> float:
    """Perplexity of a sampled response from the log-probs that its sampler recorded: free.

    It is the *sampler's own* perplexity: under the policy that wrote the response (not a later
    one), in the engine's arithmetic, over the tokens that the engine kept (the end-of-sequence
    token may be missing), of the raw logits before temperature and top-p. Under the same weights
    it differs from `perplexities` by rounding and by the last token; choose one kind for a data
    set and do not compare across the two.

    Args:
        logprobs: natural-log probability of each sampled token, at least one.

    Raises:
        DataError: there are no tokens.
    """
    if not logprobs:
        raise DataError(explain("perplexity of a response without tokens"))
    return math.exp(-math.fsum(logprobs) / len(logprobs))


def length_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Row indices in batches of like length, longest first: memory fails at once or never."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batch[0]] if batch else 0
        full = longest * (len(batch) + 1) > max_tokens
        if batch and (full or lengths[row] < LEAST_FILL * longest):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _check(token_ids: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> None:
    if len(token_ids) != len(prompt_lengths):
        raise DataError(
            explain(
                "rows and prompt lengths differ", got=len(prompt_lengths), expected=len(token_ids)
            )
        )
    for row, (ids, prompt_length) in enumerate(zip(token_ids, prompt_lengths, strict=True)):
        if not 1 <= prompt_length < len(ids):
            raise DataError(
                explain(
                    f"row {row} has no prompt or no response",
                    got=f"{prompt_length} prompt tokens of {len(ids)}",
                )
            )


def _ready(model: Any, dtype: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    if not isinstance(model, str | Path):
        return model.eval()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=getattr(torch, dtype), trust_remote_code=False
    )
    return loaded.to(device).eval()


def _batch_nll(
    model: Any, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int], device: str
) -> list[float]:
    """Mean negative log-likelihood of each row's response; float64 sums."""
    import torch

    width = max(len(ids) for ids in rows)
    input_ids = torch.zeros((len(rows), width), dtype=torch.long)
    target = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, (ids, prompt_length) in enumerate(zip(rows, prompt_lengths, strict=True)):
        input_ids[number, : len(ids)] = torch.as_tensor(ids)
        target[number, prompt_length : len(ids)] = True
    input_ids, target = input_ids.to(device), target.to(device)
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    chosen = hidden[:, :-1][target[:, 1:]]  # [R, D] states that predict a response token
    expected = input_ids[target]  # [R]
    nll = _chunked_nll(chosen, model.get_output_embeddings(), expected)
    counts = target.sum(dim=1).tolist()
    return [float(part.sum()) / len(part) for part in nll.double().split(counts)]


def _chunked_nll(hidden: Any, head: Any, expected: Any) -> Any:
    """-log softmax(head(hidden))[expected] per row, [R] float32, without all logits at once."""
    import torch

    chunk = max(1, CHUNK_LOGITS // head.weight.shape[0])
    parts = []
    for start in range(0, len(expected), chunk):
        logits = head(hidden[start : start + chunk]).float()
        wanted = logits.gather(1, expected[start : start + chunk, None]).squeeze(1)
        parts.append(torch.logsumexp(logits, dim=1) - wanted)
    return torch.cat(parts)
