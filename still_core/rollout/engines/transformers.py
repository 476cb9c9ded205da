"""Transformers' models behind the engine protocol: portable, simple, and the oracle in tests.

A static batch is decoded token by token with a KV cache; rows that end leave the batch. Each
request draws from its own generator, seeded by the request, so its tokens do not depend on its
neighbours beyond floating-point noise of the batched matrix products.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from still_core.errors import ConfigError, explain
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest, Sampling
from still_core.rollout.weights import Weights


@dataclass
class _Row:
    """One running completion."""

    request: RolloutRequest
    identity: str
    prompt: list[int]
    limit: int
    generator: Any
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TransformersEngine(Engine):
    """A causal language model of transformers behind the engine protocol."""

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        super().__init__(recipe, resources, weights)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        from transformers import AutoTokenizer

        torch.set_num_threads(resources.threads_per_actor)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(weights.resolve())
        self._queue: deque[RolloutRequest] = deque()
        self._rows: list[_Row] = []
        self._cache: Any = None
        self._mask: Any = None
        self._load(weights)

    def _load(self, weights: Weights) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                weights.resolve(), dtype=getattr(torch, self.recipe.dtype)
            )
        except OSError as error:
            raise ConfigError(explain("model folder can not be loaded", got=str(error))) from error
        self._model: Any = model.to(self._device).eval()
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else {ends}

    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        self._queue.extend(requests)

    def step(self) -> list[Finished]:
        """One token for every row; a new batch starts when the last one is done."""
        import torch

        finished: list[Finished] = []
        with torch.no_grad():
            logits = self._begin(finished) if not self._rows else self._advance()
            if logits is None:
                return finished
            kept = []
            for number, row in enumerate(self._rows):
                completion = self._draw(row, logits[number])
                if completion is None:
                    kept.append(number)
                else:
                    finished.append((row.identity, completion))
            self._keep(kept)
        return finished

    def abort(self, ids: Iterable[str]) -> None:
        """Drop these requests if they are in flight."""
        wanted = set(ids)
        self._queue = deque(request for request in self._queue if request.id not in wanted)
        self._keep([n for n, row in enumerate(self._rows) if row.identity not in wanted])

    def pending(self) -> int:
        """Requests queued or running."""
        return len(self._queue) + len(self._rows)

    def score(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs of given sequences by one forward pass each; see the protocol."""
        import torch

        scores = []
        with torch.no_grad():
            for tokens in token_ids:
                ids = torch.tensor([list(tokens)], device=self._device)
                logprobs = self._model(ids).logits[0, :-1].float().log_softmax(-1)
                scores.append(logprobs.gather(-1, ids[0, 1:, None])[:, 0].tolist())
        return scores

    def _begin(self, finished: list[Finished]) -> Any:
        """Prefill the next batch, left-padded; returns the logits [rows, vocabulary] or None."""
        import torch

        while self._queue and len(self._rows) < self.resources.max_num_seqs:
            request = self._queue.popleft()
            prompt = self._tokenizer(request.prompt, add_special_tokens=False).input_ids
            room = self.recipe.max_model_len - len(prompt)
            if room < 1:
                cut = Completion(
                    text="", token_ids=(), logprobs=(), finish_reason=FinishReason.LENGTH
                )
                finished.append((request.id, cut))
                continue
            generator = torch.Generator().manual_seed(request.seed)
            limit = min(request.sampling.max_tokens, room)
            self._rows.append(_Row(request, request.id, prompt, limit, generator))
        if not self._rows:
            return None
        width = max(len(row.prompt) for row in self._rows)
        ids = torch.zeros(len(self._rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(self._rows):
            ids[number, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[number, width - len(row.prompt) :] = 1
        self._mask, self._cache = mask.to(self._device), None
        return self._forward(ids.to(self._device), (self._mask.cumsum(-1) - 1).clamp(min=0))

    def _advance(self) -> Any:
        """Feed each row's last token; returns the logits [rows, vocabulary]."""
        import torch

        last = torch.tensor([[row.tokens[-1]] for row in self._rows], device=self._device)
        self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=-1)
        return self._forward(last, self._mask.sum(-1, keepdim=True) - 1)

    def _forward(self, ids: Any, positions: Any) -> Any:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        return output.logits[:, -1].float().cpu()

    def _draw(self, row: _Row, logits: Any) -> Completion | None:
        """Draw one token for `row`; its completion if it ends with this token."""
        token = draw(logits, row.request.sampling, row.generator)
        row.tokens.append(token)
        row.logprobs.append(float(logits.log_softmax(-1)[token]))
        if token in self._ends:
            return self._complete(row, self._decode(row.tokens[:-1]), FinishReason.STOP)
        stops = row.request.sampling.stop
        if stops:
            text = self._decode(row.tokens)
            ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
            if ends:
                return self._complete(row, text[: min(ends)], FinishReason.STOP)
        if len(row.tokens) >= row.limit:
            return self._complete(row, self._decode(row.tokens), FinishReason.LENGTH)
        return None

    def _complete(self, row: _Row, text: str, reason: FinishReason) -> Completion:
        return Completion(
            text=text,
            token_ids=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            finish_reason=reason,
        )

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _keep(self, numbers: list[int]) -> None:
        if len(numbers) == len(self._rows):
            return
        self._rows = [self._rows[number] for number in numbers]
        if not self._rows:
            self._cache = self._mask = None
        elif self._cache is not None:
            import torch

            index = torch.tensor(numbers, device=self._device)
            self._mask = self._mask[index]
            self._cache.batch_select_indices(index)


def draw(logits: Any, sampling: Sampling, generator: Any) -> int:
    """One token from `logits` [vocabulary] by temperature, then top-k, then top-p."""
    import torch

    if sampling.greedy():
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k:
        threshold = logits.topk(min(sampling.top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    probabilities, order = logits.softmax(-1).sort(descending=True)
    if sampling.top_p < 1.0:
        # Keep the smallest head whose mass reaches top_p; the first token always stays.
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
