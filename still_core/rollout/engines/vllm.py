"""vLLM in this process, driven step by step: requests in, finished completions out as they end.

The in-process `LLMEngine` is used rather than `LLM.generate` or a server, because single requests
can then be added and aborted between two steps, and weights are swapped in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from still_core.errors import RolloutError, explain
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest
from still_core.rollout.weights import Weights

_PLAIN_ATTENTION = frozenset({"full_attention", "sliding_attention"})
_BLOCK_TOKENS = 256
"""At least as many as vLLM puts into a block of the cache on CPU."""


def environment(resources: RolloutResources) -> dict[str, str]:
    """Variables that must stand before vLLM is imported."""
    # On CPU the one function left to compile counts ranks of tokens, which nobody reads: tracing it
    # takes 3 s of the first step.
    eager = resources.enforce_eager and not resources.gpus_per_actor
    return {
        **({"TORCHDYNAMO_DISABLE": "1"} if eager else {}),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Several actors share a machine; binding would put all of them on the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(resources.threads_per_actor),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def engine_arguments(
    recipe: EngineRecipe, resources: RolloutResources, directory: Path, *, on_cpu: bool
) -> dict[str, Any]:
    """What vLLM is started with, as keywords of its `EngineArgs` or `LLM`."""
    arguments: dict[str, Any] = {
        "model": str(directory),
        "dtype": recipe.dtype,
        "max_model_len": recipe.max_model_len,
        "max_num_seqs": resources.max_num_seqs,
        "enforce_eager": resources.enforce_eager,
        "tensor_parallel_size": resources.tensor_parallel,
        "distributed_executor_backend": "uni" if resources.tensor_parallel == 1 else "mp",
        "gpu_memory_utilization": resources.gpu_memory_utilization,
        "seed": 0,
        "disable_log_stats": True,
    }
    if on_cpu:
        # A prompt cut into chunks makes vLLM turn a seeded request's generator back, which CPU
        # generators can not do ("CPU Generator does not use offset"): prefill in one go.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(4096, recipe.max_model_len)
        arguments["kv_cache_memory_bytes"] = cache_bytes(recipe, resources, directory)
    return arguments


def cache_bytes(recipe: EngineRecipe, resources: RolloutResources, directory: Path) -> int:
    """KV cache of an engine on CPU: room for `max_num_seqs` full completions, at most the limit.

    vLLM writes zeros to all of it at its start, and on a virtual machine memory that was never
    touched comes slowly. Models with other than plain attention layers get the whole limit.
    """
    from transformers import AutoConfig

    most = resources.kv_cache_gib * 2**30
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False).get_text_config()
    if not _PLAIN_ATTENTION.issuperset(getattr(config, "layer_types", None) or ()):
        return most
    heads: int = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    width *= getattr(config, "num_key_value_heads", None) or heads
    # Keys and values, of 4 bytes at most. The last block of a completion is seldom full.
    per_token: int = 2 * 4 * width * config.num_hidden_layers
    blocks = 1 + -(-recipe.max_model_len // _BLOCK_TOKENS)
    return min(most, per_token * blocks * _BLOCK_TOKENS * (resources.max_num_seqs + 1))


def sampling_parameters(request: RolloutRequest, room: int) -> Any:
    """vLLM's `SamplingParams` for one request.

    Args:
        request: what to draw.
        room: tokens that the context leaves for the completion.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    return SamplingParams(
        n=1,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=min(sampling.max_tokens, room),
        stop=list(sampling.stop) or None,
        include_stop_str_in_output=bool(sampling.stop),
        seed=None if sampling.greedy() else request.seed,
        logprobs=0,
        # One object per completion instead of three per token: the collector walks them all.
        flat_logprobs=True,
        # Without it vLLM builds an answer per request and step, which nobody reads.
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
    )


class VllmEngine(Engine):
    """vLLM's `LLMEngine` behind the engine protocol. One per process: vLLM keeps global state."""

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        super().__init__(recipe, resources, weights)
        os.environ.update(environment(resources))
        import torch
        from vllm import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        directory = weights.resolve()
        on_cpu: bool = current_platform.is_cpu()
        arguments = EngineArgs(**engine_arguments(recipe, resources, directory, on_cpu=on_cpu))
        # The variable above comes too late where torch is already loaded.
        torch.set_num_threads(resources.threads_per_actor)
        _let_kernel_scan_pass()
        self._engine: Any = LLMEngine.from_engine_args(arguments)
        self._directory = directory
        self._tokenize = lru_cache(maxsize=4096)(_tokenizer(directory))
        tokenizer: Any = self._engine.tokenizer
        self._decode = lru_cache(maxsize=64)(lambda token: str(tokenizer.decode([token])))
        self._in_flight: set[str] = set()
        self._hopeless: list[str] = []

    def _load(self, weights: Weights) -> None:
        directory = weights.resolve()
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(directory)})
        self._engine.apply_model(_repack_head)
        # Cached keys and values are found by tokens alone, so those of the old weights must go.
        if self._engine.reset_prefix_cache() is False:
            raise RolloutError("vLLM did not reset its prefix cache after a change of weights")

    def _submit(self, requests: Sequence[RolloutRequest]) -> None:
        for request in requests:
            prompt = self._tokenize(request.prompt)
            room = self.recipe.max_model_len - len(prompt)
            if room <= 0:
                self._hopeless.append(request.id)
                continue
            parameters = sampling_parameters(request, room)
            identity = request.id
            self._engine.add_request(identity, {"prompt_token_ids": list(prompt)}, parameters)
            self._in_flight.add(identity)

    def step(self) -> list[Finished]:
        """One engine step; a prompt that leaves no room ends at once, empty and truncated."""
        finished: list[Finished] = [(identity, _EMPTY) for identity in self._hopeless]
        self._hopeless.clear()
        if self._in_flight:
            for output in self._engine.step():
                if output.finished and output.request_id in self._in_flight:
                    self._in_flight.discard(output.request_id)
                    finished.append((output.request_id, self._completion(output.outputs[0])))
        return finished

    def _completion(self, output: Any) -> Completion:
        tokens = tuple(int(token) for token in output.token_ids)
        logprobs = tuple(output.logprobs.logprobs)
        if len(logprobs) != len(tokens):
            raise RolloutError(
                explain("log-probs from vLLM", got=len(logprobs), expected=f"{len(tokens)}, 1 each")
            )
        text, reason = output.text, FinishReason(output.finish_reason)
        if reason is FinishReason.STOP and not isinstance(output.stop_reason, str):
            # Kept by vLLM where stop strings are kept too: the text of the end token.
            text = text.removesuffix(self._decode(tokens[-1]))
        return Completion(text=text, token_ids=tokens, logprobs=logprobs, finish_reason=reason)

    def abort(self, ids: Iterable[str]) -> None:
        """Drop these requests if they are in flight."""
        wanted = set(ids)
        self._hopeless = [identity for identity in self._hopeless if identity not in wanted]
        known = sorted(wanted & self._in_flight)
        if known:
            self._engine.abort_request(known)
            self._in_flight.difference_update(known)

    def pending(self) -> int:
        """Requests queued or running."""
        return len(self._in_flight) + len(self._hopeless)

    def score(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs of given sequences by vLLM's prompt log-probs; see the protocol."""
        from vllm import SamplingParams

        if self.pending():
            raise RolloutError(explain("scoring with completions in flight", got=self.pending()))
        for number, tokens in enumerate(token_ids):
            self._engine.add_request(
                f"score-{number}",
                {"prompt_token_ids": list(tokens)},
                SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0),
            )
        rows: dict[str, list[float]] = {}
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    tokens = output.prompt_token_ids
                    rows[output.request_id] = [
                        float(entry[token].logprob)
                        for token, entry in zip(tokens[1:], output.prompt_logprobs[1:], strict=True)
                    ]
        return [rows[f"score-{number}"] for number in range(len(token_ids))]

    def close(self) -> None:
        """Stop the engine's workers."""
        self._engine.engine_core.shutdown()


_EMPTY = Completion(text="", token_ids=(), logprobs=(), finish_reason=FinishReason.LENGTH)


def _let_kernel_scan_pass() -> None:
    """Give vLLM's kernel scan a dictionary for every object it meets.

    At its start on a CPU vLLM calls `vars(value).get` on all that loaded modules hold. Where numba
    is loaded, llvmlite's library handle answers that with a function, and the start fails (0.32).
    """
    from vllm.triton_utils import dispatcher

    scan: Any = dispatcher

    def namespace(value: object) -> Mapping[str, Any]:
        found: object = vars(value)
        return found if isinstance(found, Mapping) else {}

    scan.vars = namespace


def _repack_head(model: Any) -> None:
    """Pack the output head anew for CPU kernels.

    Where it is tied to the embedding, vLLM's reload renews the embedding and leaves the head's
    packed copy with the old weights, without an error (0.32, CPU; on GPU there is no copy).
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head: Any = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear"):
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def _tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)

    def encode(prompt: str) -> tuple[int, ...]:
        # The chat template has already written every special token.
        return tuple(tokenizer(prompt, add_special_tokens=False).input_ids)

    return encode
