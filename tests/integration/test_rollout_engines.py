"""The engines: vLLM on the CPU held to transformers as its oracle."""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from still_core.errors import ConfigError, RolloutError
from still_core.rollout.engines.engine import Engine, build_engine
from still_core.rollout.engines.vllm import cache_bytes
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, RolloutRequest, Sampling
from still_core.rollout.weights import Weights

pytestmark = pytest.mark.integration

PROMPT = "<|im_start|>user\n{}+1=?<|im_end|>\n<|im_start|>assistant\n"


def weights(directory: Path, version: int = 0) -> Weights:
    return Weights(directory=str(directory), policy_digest=directory.name, policy_version=version)


def make_engine(kind: str, directory: Path, **resources: int) -> Engine:
    return build_engine(
        EngineRecipe.model_validate({"kind": kind, "max_model_len": 256}),
        RolloutResources.model_validate({"max_num_seqs": 32, **resources}),
        weights(directory),
    )


@pytest.fixture(scope="module")
def vllm_engine(tiny_model_dir: Path) -> Iterator[Engine]:
    # vLLM's scan of loaded modules must get past llvmlite's library handle, which numba brings.
    importlib.import_module("llvmlite.binding")
    engine = make_engine("vllm", tiny_model_dir)
    yield engine
    engine.close()


@pytest.fixture(params=["vllm", "transformers"])
def engine(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Engine:
    if request.param == "transformers":
        return make_engine("transformers", tiny_model_dir)
    engine: Engine = request.getfixturevalue("vllm_engine")
    if engine.weights != weights(tiny_model_dir):
        engine.load_weights(weights(tiny_model_dir))
    return engine


def ask(
    engine: Engine,
    seeds: range,
    *,
    max_tokens: int = 60,
    temperature: float = 1.0,
    stop: tuple[str, ...] = (),
    top_p: float = 1.0,
    top_k: int = 0,
) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            problem_id="p",
            problem_digest="d",
            prompt=PROMPT.format(seed % 3),
            prompt_digest="plain",
            policy_digest=engine.weights.policy_digest,
            policy_version=0,
            sampling=Sampling(
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                max_tokens=max_tokens,
                stop=stop,
            ),
            sample_index=seed,
            seed=seed,
            engine_build=engine.build,
        )
        for seed in seeds
    ]


def answers(engine: Engine, requests: list[RolloutRequest]) -> list[Completion]:
    got = dict(engine.generate(requests))
    assert len(got) == len(requests)
    return [got[request.id] for request in requests]


def test_one_seed_gives_one_completion_whatever_runs_beside_it(engine: Engine) -> None:
    together = answers(engine, ask(engine, range(40)))
    alone = [answers(engine, ask(engine, range(seed, seed + 1)))[0] for seed in (0, 7, 39)]
    assert [alone[0].text, alone[1].text, alone[2].text] == [
        together[0].text,
        together[7].text,
        together[39].text,
    ]
    assert len({completion.text for completion in together}) >= 38


def test_seeds_hold_where_prompts_do_not_fit_one_prefill(engine: Engine) -> None:
    # 60 prompts of 180 tokens: more than an engine on CPU prefills in one step.
    requests = [
        replace(request, prompt=str(request.seed % 10) * 180)
        for request in ask(engine, range(60), max_tokens=20)
    ]
    together = answers(engine, requests)
    alone = answers(engine, [replace(requests[55])])
    assert alone[0].text == together[55].text


def test_logprobs_are_those_of_the_drawn_tokens(engine: Engine) -> None:
    request = ask(engine, range(3, 4))[0]
    (completion,) = answers(engine, [request])
    oracle = make_engine("transformers", Path(engine.weights.directory))
    prompt = oracle._tokenizer(request.prompt).input_ids  # type: ignore[attr-defined]
    (scores,) = oracle.score([[*prompt, *completion.token_ids]])
    assert len(completion.logprobs) == len(completion.token_ids)
    assert completion.logprobs == pytest.approx(scores[len(prompt) - 1 :], abs=1e-4)


def test_the_end_token_is_in_the_ids_and_not_in_the_text(engine: Engine) -> None:
    completions = answers(engine, ask(engine, range(60), max_tokens=150))
    ended = [c for c in completions if c.finish_reason is FinishReason.STOP]
    cut = [c for c in completions if c.finish_reason is FinishReason.LENGTH]
    assert ended
    assert cut
    for completion in ended:
        assert completion.token_ids[-1] == 2
        assert "<|im_end|>" not in completion.text
    assert all(len(c.token_ids) == 150 for c in cut)


def test_thought_marks_stay_in_the_text(engine: Engine) -> None:
    texts = [c.text for c in answers(engine, ask(engine, range(120)))]
    assert any("<|begin_of_thought|>" in text for text in texts)
    assert any("<|end_of_solution|>" in text for text in texts)


def test_a_stop_string_ends_the_text_and_stays_in_it(engine: Engine) -> None:
    completions = answers(engine, ask(engine, range(40), max_tokens=150, stop=("a",)))
    stopped = [c for c in completions if c.text.endswith("a")]
    assert len(stopped) >= 20
    assert all(c.text.count("a") == 1 for c in stopped)
    assert all("<|im_end|>" not in c.text for c in completions)


def test_greedy_answers_agree_between_engines(vllm_engine: Engine, tiny_model_dir: Path) -> None:
    if vllm_engine.weights != weights(tiny_model_dir):
        vllm_engine.load_weights(weights(tiny_model_dir))
    oracle = make_engine("transformers", tiny_model_dir)
    seeds = range(3)
    ours = answers(vllm_engine, ask(vllm_engine, seeds, temperature=0.0))
    theirs = answers(oracle, ask(oracle, seeds, temperature=0.0))
    assert [c.text for c in ours] == [c.text for c in theirs]


def test_an_aborted_request_never_ends(engine: Engine) -> None:
    requests = ask(engine, range(20))
    engine.submit(requests)
    engine.step()
    engine.abort([request.id for request in requests[::2]])
    ended = set()
    while engine.pending():
        ended.update(identity for identity, _ in engine.step())
    assert not ended & {request.id for request in requests[::2]}


def test_a_prompt_that_fills_the_context_ends_empty_and_truncated(engine: Engine) -> None:
    long = replace(ask(engine, range(1))[0], prompt="1" * 300)
    (completion,) = answers(engine, [long])
    assert (completion.text, completion.finish_reason) == ("", FinishReason.LENGTH)


def test_a_request_for_other_weights_is_refused(engine: Engine) -> None:
    stale = replace(ask(engine, range(1))[0], policy_digest="another")
    with pytest.raises(RolloutError, match="refuses a request for other weights"):
        engine.submit([stale])


def test_new_weights_take_hold_completely_and_nothing_of_the_old_is_kept(
    vllm_engine: Engine, tiny_model_dir: Path, other_tiny_model_dir: Path
) -> None:
    rows = [[(5 * n + m) % 128 for m in range(40)] for n in range(4)]
    # Longer than a cache block, so that a prefix cached with the old weights would be taken up.
    prompt = "12345678 " * 20
    for directory in (other_tiny_model_dir, tiny_model_dir, other_tiny_model_dir):
        vllm_engine.load_weights(weights(directory))
        oracle = make_engine("transformers", directory)
        for got, want in zip(vllm_engine.score(rows), oracle.score(rows), strict=True):
            assert got == pytest.approx(want, abs=1e-4)
        texts = []
        for engine in (vllm_engine, oracle):
            request = ask(engine, range(1), temperature=0.0, max_tokens=20)[0]
            texts.append(answers(engine, [replace(request, prompt=prompt)])[0].text)
        assert texts[0] == texts[1]


def test_the_cache_on_cpu_holds_all_completions_at_full_length_and_no_more_than_asked(
    vllm_engine: Engine, tiny_model_dir: Path
) -> None:
    cache = vllm_engine._engine.vllm_config.cache_config  # type: ignore[attr-defined]
    full_length = 32 * 256
    assert full_length <= cache.num_gpu_blocks * cache.block_size < 4 * full_length
    many = RolloutResources(max_num_seqs=100_000, kv_cache_gib=2)
    assert cache_bytes(vllm_engine.recipe, many, tiny_model_dir) == 2 * 2**30


def test_weights_are_not_changed_under_running_completions(engine: Engine) -> None:
    engine.submit(ask(engine, range(2)))
    with pytest.raises(RolloutError, match="with completions in flight"):
        engine.load_weights(engine.weights)
    while engine.pending():
        engine.step()


def test_sampling_follows_the_model_s_distribution(vllm_engine: Engine) -> None:
    """First tokens over many seeds against the oracle's probabilities: chi-square by hand."""
    requests = ask(vllm_engine, range(0, 3000, 3), max_tokens=1)
    counts: dict[int, int] = {}
    for completion in answers(vllm_engine, requests):
        counts[completion.token_ids[0]] = counts.get(completion.token_ids[0], 0) + 1
    oracle = make_engine("transformers", Path(vllm_engine.weights.directory))
    prompt = oracle._tokenizer(requests[0].prompt).input_ids  # type: ignore[attr-defined]
    scores = oracle.score([[*prompt, token] for token in range(128)])
    expected = [1000 * math.exp(row[-1]) for row in scores]
    assert sum(expected) == pytest.approx(1000, rel=1e-3)
    common = [token for token in range(128) if expected[token] >= 5]
    rest = 1000 - sum(expected[token] for token in common)
    seen_rest = 1000 - sum(counts.get(token, 0) for token in common)
    chi_square = sum((counts.get(t, 0) - expected[t]) ** 2 / expected[t] for t in common)
    chi_square += (seen_rest - rest) ** 2 / rest
    # Mean = degrees of freedom, standard deviation sqrt(2 df): four deviations above.
    degrees = len(common)
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_a_model_folder_without_weights_is_refused(
    vllm_engine: Engine, tiny_model_dir: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(tiny_model_dir, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ConfigError, match="no safetensors weights"):
        vllm_engine.load_weights(weights(empty))
