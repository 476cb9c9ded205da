"""Attempts per problem of `explore` against the formula (1 - (1-p)^n) / p and against fixed n.

    python tests/benchmarks/explore_until_correct.py [--problems 300]

Only the scheduling is measured: a simulated engine of 64 slots finishes attempts in the order of
random lengths, a problem's attempts are correct with probability p. Counted are the tokens of every
attempt that was started, those that were cut included up to the cut.
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import random
import statistics
import sys
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.identity import derive_seed
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.explore import explore
from still_core.rollout.recipe import ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, Rollout, RolloutRequest, Sampling
from still_core.verify import VERIFIER_VERSION
from still_core.verify.verdict import Outcome, Verdict

LIMIT = 20
SEEDS = range(5)


class WavesAlone(RolloutResources):
    """Draws nothing ahead of the waves, whatever stands empty."""

    def idle_limit(self, finished: int) -> int:
        return 0


SETTINGS = {
    "one by one": RolloutResources(waves=(1,)),
    "waves alone": WavesAlone(),
    "default": RolloutResources(),
    "all at once": RolloutResources(waves=(LIMIT,)),
}


class SimulatedPool:
    """Slots that draw one token per tick; lengths are log-normal, outcomes a coin of bias p."""

    engine_build, policy_digest, policy_version, tokenizer = "simulated", "p", 0, None
    capacity = 64

    def __init__(self, pass_rate: float) -> None:
        self.pass_rate, self.clock, self.tokens = pass_rate, 0, 0
        self.queue: dict[str, RolloutRequest] = {}
        self.running: list[tuple[int, str]] = []
        self.started: dict[str, tuple[RolloutRequest, int]] = {}

    @property
    def room(self) -> int:
        return self.capacity + self.capacity // 2 - self.pending()

    def submit(self, requests: Iterable[RolloutRequest]) -> None:
        self.queue.update((request.id, request) for request in requests)

    def cancel(self, ids: Iterable[str]) -> None:
        for identity in ids:
            self.queue.pop(identity, None)
            if identity in self.started:
                self.tokens += self.clock - self.started.pop(identity)[1]

    def pending(self) -> int:
        return len(self.queue) + len(self.started)

    def poll(self, timeout_s: float = 0.0) -> list[Rollout]:
        while self.queue and len(self.started) < self.capacity:
            identity = next(iter(self.queue))
            request = self.queue.pop(identity)
            length = int(random.Random(request.seed).lognormvariate(5, 0.6)) + 1
            self.started[identity] = (request, self.clock)
            heapq.heappush(self.running, (self.clock + length, identity))
        while self.running:
            ends, identity = heapq.heappop(self.running)
            if identity in self.started:
                self.clock = ends
                request, begun = self.started.pop(identity)
                self.tokens += self.clock - begun
                return [self._rollout(request, self.clock - begun)]
        return []

    def _rollout(self, request: RolloutRequest, length: int) -> Rollout:
        good = random.Random(request.seed + 1).random() < self.pass_rate
        completion = Completion(
            text="good" if good else "bad",
            token_ids=(0,) * length,
            logprobs=(),
            finish_reason=FinishReason.STOP,
        )
        return Rollout.of(request, completion)


class InstantVerifier:
    """Judges at once."""

    def submit(self, answer: Any) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        outcome = Outcome.CORRECT if answer.pred == "good" else Outcome.WRONG
        future.set_result(
            Verdict(
                outcome=outcome,
                extracted=None,
                rule="",
                verifier_version=VERIFIER_VERSION,
                seconds=0.0,
            )
        )
        return future


class PlainPrompt:
    """The statement itself."""

    def render(self, problem_statement: str, tokenizer: Any) -> str:
        return problem_statement

    def digest(self, tokenizer: Any) -> str:
        return "plain"


def make_problems(count: int) -> list[Problem]:
    return [
        Problem(
            id=f"u/{n}",
            statement=str(n),
            gold="good",
            kind=AnswerKind.TEXT,
            domain="none",
            bucket=Bucket.OTHER,
            source="u",
            row=n,
        )
        for n in range(count)
    ]


def measure(
    pass_rate: float, resources: RolloutResources, seed: int, *, problems: int
) -> tuple[float, int]:
    """Tokens per problem over mean length, ticks."""
    pool = SimulatedPool(pass_rate)
    recipe = ExploreRecipe(
        sampling=Sampling(temperature=1.0, max_tokens=100_000), max_attempts=LIMIT
    )
    found = explore(
        make_problems(problems),
        pool,
        None,
        InstantVerifier(),
        recipe,
        resources,
        seed=derive_seed(seed),
        round=0,
        prompt=PlainPrompt(),
    )
    summary = found.summary()
    mean_length = summary["tokens"] / summary["attempts"]
    return pool.tokens / mean_length / problems, pool.clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=300)
    problems = parser.parse_args().problems
    print(
        "| p | setting | attempts by formula | attempts drawn, median (min-max) | formula / drawn "
        "| saving over fixed n | ticks / ticks of all at once |"
    )
    print("|---|---|---|---|---|---|---|")
    for pass_rate in (0.05, 0.1, 0.3, 0.5, 0.8):
        formula = (1 - (1 - pass_rate) ** LIMIT) / pass_rate
        measured = {
            name: [measure(pass_rate, resources, seed, problems=problems) for seed in SEEDS]
            for name, resources in SETTINGS.items()
        }
        wide = statistics.median(ticks for _, ticks in measured["all at once"])
        for name, runs in measured.items():
            drawn = [run[0] for run in runs]
            ticks = statistics.median(run[1] for run in runs)
            middle = statistics.median(drawn)
            print(
                f"| {pass_rate} | {name} | {formula:.2f} | {middle:.2f} "
                f"({min(drawn):.2f}-{max(drawn):.2f}) | {formula / middle:.2f} | "
                f"{LIMIT / middle:.1f}x | {ticks / wide:.2f} |",
                flush=True,
            )
    print(
        f"\n{problems} problems, at most {LIMIT} attempts, 64 slots, {len(SEEDS)} seeds; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
