"""Evaluate one model: sample its answers to every benchmark, judge them, measure their thoughts.

benchmarks -> sample (bank first) -> verdicts -> EvaluatedAnswer rows
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from still_core.evaluate.answers import EvaluatedAnswer, thought_length
from still_core.evaluate.recipe import EvaluateRecipe
from still_core.problems.problem import Problem
from still_core.problems.tables import Benchmark
from still_core.progress import ProgressListener
from still_core.responses.prompts import prompt as prompt_named
from still_core.responses.response import Response
from still_core.rollout.rollout import Rollout
from still_core.rollout.sample import sample
from still_core.rollout.search import Bank, Pool, Verifier

ThoughtCheck = Callable[[Problem, Response], bool | None]
"""Whether every step of a response's thought holds; None where nothing can tell."""


def evaluate_benchmarks(
    benchmarks: Sequence[Benchmark],
    *,
    pool: Pool,
    bank: Bank | None,
    verifier: Verifier,
    recipe: EvaluateRecipe,
    prompt: str,
    seed: int,
    thought_check: ThoughtCheck = lambda problem, response: None,
    progress: ProgressListener | None = None,
) -> list[EvaluatedAnswer]:
    """The model's judged answers, in the order of the benchmarks and their problems.

    Args:
        benchmarks: what to answer; problem ids may repeat across benchmarks.
        pool: holds the model's weights.
        bank: read first, then given what is new.
        verifier: judges each answer as it ends.
        recipe: sampling and number of samples.
        prompt: name of the prompt.
        seed: recipe seed; greedy decoding does not use it.
        thought_check: tells sound thoughts from lucky ones in well-formed responses, where the
            domain allows it.
        progress: told while answers arrive.
    """
    asked, tokenizer = prompt_named(prompt), pool.tokenizer

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    distinct = {problem.id: problem for b in benchmarks for problem in b.problems}
    result = sample(
        list(distinct.values()),
        pool,
        bank,
        verifier,
        recipe.sampling,
        num_samples=recipe.num_samples,
        seed=seed,
        prompt=prompt,
        owner="evaluate",
        stage="evaluate",
        progress=progress,
    )
    groups = {group.problem.id: group.rollouts for group in result.groups}

    def answer(benchmark: Benchmark, problem: Problem, rollout: Rollout) -> EvaluatedAnswer:
        found = asked.read_completion(rollout.text)
        return EvaluatedAnswer.of(
            problem,
            rollout,
            benchmark=benchmark.name,
            level=benchmark.level,
            thought_tokens=thought_length(rollout.text, asked, encode),
            thought_valid=thought_check(problem, found) if isinstance(found, Response) else None,
        )

    return [
        answer(benchmark, problem, rollout)
        for benchmark in benchmarks
        for problem in benchmark.problems
        for rollout in groups[problem.id]
    ]
