"""From an exploration's correct rollouts to candidates for D_t, with perplexity and length.

selected rollouts -> strict reader of the prompt's markup -> demonstrations -> perplexity under the
model that found them

Perplexity is measured by a forward pass over prompt and response; `select.perplexity_source` takes
it from the rollout's log-probs instead, whose difference `rollout_perplexity` states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from still_core.problems.problem import Problem
from still_core.progress import ProgressListener
from still_core.refine.funnel import Funnel
from still_core.refine.perplexity import rollout_perplexity
from still_core.refine.recipe import PerplexitySource
from still_core.responses.codec import read_codec
from still_core.responses.demonstrations import explored
from still_core.responses.format import Defect
from still_core.responses.prompts import Prompt, render_demonstration
from still_core.responses.prompts import prompt as prompt_named
from still_core.responses.response import Demonstration
from still_core.rollout.found import read_selected, read_siblings
from still_core.rollout.rollout import Rollout
from still_core.store import Handle, Store
from still_core.train.recipe import TrainResources
from still_core.train.scoring import score_responses


def candidates_of(
    store: Store,
    exploration: Handle,
    problems: Sequence[Problem],
    policy: Handle,
    *,
    prompt: str,
    round: int,
    dtype: str,
    resources: TrainResources,
    perplexity_source: PerplexitySource = PerplexitySource.FORWARD,
    progress: ProgressListener | None = None,
) -> tuple[list[Demonstration], Funnel]:
    """Every correct, well-formed response as a scored demonstration of this round, and the account.

    A response may be correct by its box and still break the format; those can not be taught and are
    dropped here by their defect (they stay in the bank).

    Raises:
        DataError: perplexity is to come from the rollouts, and one recorded no log-probs.
    """
    read_off = perplexity_source is PerplexitySource.ROLLOUT
    rollouts = read_selected(store, exploration, logprobs=read_off)
    rows, defects = _parsed(rollouts, problems, prompt_named(prompt), round)
    funnel = Funnel().step("format", len(rows), defects)
    if read_off:
        return _read_off(store, rows, rollouts, policy), funnel
    return _scored(store, rows, policy, prompt, dtype, resources, progress), funnel


def siblings_of(
    store: Store,
    exploration: Handle,
    problems: Sequence[Problem],
    start: Handle,
    *,
    prompt: str,
    round: int,
    dtype: str,
    resources: TrainResources,
    progress: ProgressListener | None = None,
) -> tuple[list[Demonstration], Funnel]:
    """Correct and wrong well-formed responses to the problems that have both, and the account.

    Perplexity is that under `start`, the model that is to tell them apart (STILL-2 section 2.3.3).
    """
    rollouts, lost = read_siblings(store, exploration)
    funnel = Funnel().step("siblings", len(rollouts), lost)
    rows, defects = _parsed(rollouts, problems, prompt_named(prompt), round)
    funnel.step("format", len(rows), defects)
    return _scored(store, rows, start, prompt, dtype, resources, progress), funnel


def _parsed(
    rollouts: Sequence[Rollout], problems: Sequence[Problem], asked: Prompt, round: int
) -> tuple[list[Demonstration], Counter[str]]:
    """Well-formed rollouts as demonstrations, and the others by their defect."""
    by_digest = {problem.digest: problem for problem in problems}
    parsed = [(rollout, asked.read_completion(rollout.text)) for rollout in rollouts]
    defects = Counter(str(found.kind) for _, found in parsed if isinstance(found, Defect))
    rows = [
        explored(by_digest[rollout.problem_digest], rollout, found, round=round)
        for rollout, found in parsed
        if not isinstance(found, Defect)
    ]
    return rows, defects


def _read_off(
    store: Store, rows: Sequence[Demonstration], rollouts: Sequence[Rollout], policy: Handle
) -> list[Demonstration]:
    """The rows with the perplexity that their sampler's log-probs tell."""
    from still_core.distil.dataset import count_thought_tokens

    recorded = {one.id: one.logprobs for one in rollouts}
    scored = [replace(row, perplexity=rollout_perplexity(recorded[row.id])) for row in rows]
    return count_thought_tokens(scored, read_codec(store.fetch(policy)).encode)


def _scored(
    store: Store,
    rows: Sequence[Demonstration],
    model: Handle,
    prompt: str,
    dtype: str,
    resources: TrainResources,
    progress: ProgressListener | None,
) -> list[Demonstration]:
    if not rows:
        return []
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.fetch(model))

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    named = prompt_named(prompt)
    rendered = [render_demonstration(named, row, tokenizer) for row in rows]
    prompts = [encode(one.prompt_text) for one in rendered]
    texts = [ids + encode(one.completion_text) for ids, one in zip(prompts, rendered, strict=True)]
    scores = score_responses(
        store,
        model,
        texts,
        [len(ids) for ids in prompts],
        dtype=dtype,
        resources=resources,
        progress=progress,
    )
    return [
        replace(row, perplexity=score, num_thought_tokens=len(encode(row.thought)))
        for row, score in zip(rows, scores, strict=True)
    ]
