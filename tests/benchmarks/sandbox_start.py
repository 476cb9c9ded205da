"""What it costs to run one block in the sandbox, beside a fresh process of Python.

    python tests/benchmarks/sandbox_start.py [--pairs N]

Every way runs the same program in turn (A B C ... A B C ...), so that the load of the machine
falls on all; a ratio is of neighbours in one round.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from still_core.sandbox import Limits, Sandbox
from still_core.sandbox.runtime import bubblewrap_arguments, find_runtime

PRINT = "print(6 * 7)"
SYMPY = "import sympy"
PAUSE_S = 0.15
"""For the pool of warm places to fill again: a model writes its next block for longer."""


def process(*flags: str, code: str) -> Callable[[], None]:
    """A fresh interpreter without any isolation."""

    def run() -> None:
        subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, check=True)

    return run


def bubblewrap_each_time() -> Callable[[], None]:
    """A fresh bubblewrap and a fresh interpreter; no limits, no filter."""
    runtime = find_runtime()
    words, folders = bubblewrap_arguments(runtime)
    words = [folders[int(word[1:-1])] if word[:1] == "{" else word for word in words]
    command = ["bwrap", *words, runtime.executable, "-I", "-S", "-B", "-c", PRINT]

    def run() -> None:
        subprocess.run(command, capture_output=True, check=True)

    return run


def sandboxed(sandbox: Sandbox, code: str) -> Callable[[], None]:
    """A run in a place of its own."""

    def run() -> None:
        result = sandbox.run(code)
        assert result.exit_code == 0, result

    return run


def timed(run: Callable[[], None]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def table(ways: dict[str, Callable[[], None]], rounds: int, pause_s: float) -> None:
    """Run all ways in turn and print them against the first."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for _ in range(rounds):
        for name, run in ways.items():
            time.sleep(pause_s)
            seen[name].append(timed(run))
    base = next(iter(seen.values()))
    print("| way | median ms | min | max | times as fast, median (min to max) |")
    print("|---|---|---|---|---|")
    for name, values in seen.items():
        ratios = [first / own for first, own in zip(base, values, strict=True)]
        print(
            f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} "
            f"| {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |"
        )


def main() -> None:
    """Print two tables and the sustained rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"Python {platform.python_version()}, Linux {platform.release()}, load {load}\n")
    tools = ("sympy", "numpy")
    with (
        Sandbox(Limits(timeout_s=60)) as plain,
        Sandbox(Limits(timeout_s=60), packages=tools, preload=("sympy",)) as preloaded,
    ):
        with plain.session() as session:
            ways = {
                "fresh process, `python`": process(code=PRINT),
                "fresh process, `python -I -S`": process("-I", "-S", code=PRINT),
                "fresh bubblewrap and `python -I -S`": bubblewrap_each_time(),
                "Sandbox.run": sandboxed(plain, PRINT),
                "block of a session": lambda: assert_printed(session.run(PRINT).stdout),
            }
            table(ways, pairs, PAUSE_S)
        print()
        ways = {
            "fresh process that imports SymPy": process(code=SYMPY),
            "Sandbox.run with SymPy preloaded": sandboxed(preloaded, SYMPY),
        }
        table(ways, max(5, pairs // 3), PAUSE_S)
        started = time.perf_counter()
        for _ in range(300):
            plain.run(PRINT)
        rate = 300 / (time.perf_counter() - started)
        print(f"\nOne after the other without a pause: {rate:.0f} runs/s.")


def assert_printed(text: str) -> None:
    """The block really ran."""
    assert text == "42\n", text


if __name__ == "__main__":
    main()
