"""Seconds and memory of the `still bank` commands on a bank of 100,000 rollouts.

    python tests/benchmarks/bank_commands.py [--rollouts 100000] [--rows-per-shard 1000] [--s3]

The bank is as runs leave it: four policies, shards of `--rows-per-shard`, 200 tokens a rollout.
Each command is a process of its own, as a user types it, and is measured with its start; the
memory is the peak of that process.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout.bank import RolloutBank
from still_core.rollout.rollout import Rollout
from still_core.store import Store
from still_core.store.tables import table_bytes
from tests.fixtures.crash_campaign import make_rollout
from tests.fixtures.s3 import BUCKET, environment, start_server, stop_server

POLICIES = 4
ATTEMPTS = 5
TOKENS = 200
RUNS = 3


def problem(number: int) -> Problem:
    return Problem(
        id=f"bench/{number}",
        statement=f"What is {number} + 1?",
        gold=str(number + 1),
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.NORMAL_MATH,
        source="bench",
        row=number,
    )


def rollouts(count: int) -> Iterator[Rollout]:
    """`count` rollouts, `ATTEMPTS` of each policy for each problem, half of them correct."""
    rng = random.Random(0)
    for number in range(count):
        which = problem(number // (POLICIES * ATTEMPTS))
        version = number % POLICIES
        answer = which.row + number % 2
        thought = " ".join(f"step {rng.randrange(10**6)}" for _ in range(TOKENS // 4))
        yield replace(
            make_rollout(version, number),
            id=f"{number:016x}",
            problem_id=which.id,
            problem_digest=which.digest,
            policy_digest=f"{version + 10:016x}",
            sample_index=number // POLICIES % ATTEMPTS,
            text=f"{thought} \\boxed{{{answer}}}",
            token_ids=tuple(rng.choices(range(32000), k=TOKENS)),
            logprobs=tuple(-rng.random() for _ in range(TOKENS)),
            outcome="correct" if number % 2 else "wrong",
            verifier_version="0",
        )


def fill(root: str, cache: Path, count: int, rows_per_shard: int) -> None:
    """A bank of `count` rollouts and the problems that they answer."""
    store = Store(root, cache=cache)
    writer = RolloutBank(store).writer(owner="bench", flush_s=3600.0)
    for number, rollout in enumerate(rollouts(count), 1):
        writer.append(rollout)
        if number % rows_per_shard == 0:
            writer.flush()
    writer.flush()  # Not closed: a writer that closes merges its shards.
    rows = [problem(n).to_row() for n in range(count // (POLICIES * ATTEMPTS) + 1)]
    store.publish("problems", "1", {"problems.parquet": table_bytes(rows)})


def commands(count: int, out: Path) -> dict[str, list[str]]:
    """What is measured, in this order."""
    one = f"{problem(3).id}"
    return {
        "ls": ["ls"],
        "ls --problem": ["ls", "--problem", one],
        "ls --policy --verdict --round": [
            *("ls", "--policy", f"{12:016x}"[:15], "--verdict", "correct", "--round", "2"),
        ],
        "show": ["show", f"{count // 2:016x}"],
        "stats": ["stats"],
        "export x.jsonl --problem": ["export", f"{out}/one.jsonl", "--problem", one],
        "export x.parquet": ["export", f"{out}/all.parquet"],
        "export x.jsonl": ["export", f"{out}/all.jsonl"],
        "regrade --problem": ["regrade", "--problem", one],
        "regrade": ["regrade"],
        "gc": ["gc"],
        "gc --yes": ["gc", "--yes"],
        "stats, after gc": ["stats"],
    }


def measure(words: list[str], root: str, cache: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one command."""
    program = "import sys; from deployments.cli import main; sys.argv[0] = 'still'; main()"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program, "bank", *words, "--store", root],
        env={**os.environ, "STILL_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"still bank {' '.join(words)} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--s3", action="store_true", help="on a SeaweedFS server, cold cache")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bank"))
    root, server = str(work / "store"), None
    if options.s3:
        (work / "weed").mkdir()
        server, endpoint = start_server(work / "weed")
        os.environ.update(environment(endpoint))
        root = f"s3://{BUCKET}/bank"
    try:
        started = time.perf_counter()
        fill(root, work / "fill", options.rollouts, options.rows_per_shard)
        print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
        print("| still bank | seconds, median | min | max | peak MiB |\n|---|---|---|---|---|")
        for name, words in commands(options.rollouts, work).items():
            # These two change the bank; the others are repeated.
            runs = 1 if words in (["regrade"], ["gc", "--yes"]) else RUNS
            found = [measure(words, root, work / "cache") for _ in range(runs)]
            seconds, peaks = zip(*found, strict=True)
            print(
                f"| `{name}` | {statistics.median(seconds):.1f} | {min(seconds):.1f} "
                f"| {max(seconds):.1f} | {max(peaks):.0f} |",
                flush=True,
            )
    finally:
        if server is not None:
            stop_server(server)
        shutil.rmtree(work, ignore_errors=True)
    print(
        f"\n{options.rollouts} rollouts of {TOKENS} tokens in shards of {options.rows_per_shard}, "
        f"{'S3' if options.s3 else 'folder'}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        f", Python {platform.python_version()}; this process {_own_peak():.0f} MiB"
    )


def _own_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
