"""Interleaved pairs of timings and their table, for the benchmarks of training."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version


def interleave(
    ours: Callable[[], float], peer: Callable[[], float], *, pairs: int = 5
) -> tuple[list[float], list[float]]:
    """Run A B B A A B ..., one unmeasured pair first; the figures that the two return.

    They take turns at being first: each leaves caches and the allocator in its own state.
    """
    ours(), peer()
    results: tuple[list[float], list[float]] = ([], [])
    sides = [(ours, results[0]), (peer, results[1])]
    for _ in range(pairs):
        for side, figures in sides:
            figures.append(side())
        sides.reverse()
    return results


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio_row(name: str, better: list[float], worse: list[float], bar: str) -> str:
    """A table row of the ratio worse / better of each pair: median, least and largest."""
    ratios = [w / b for b, w in zip(better, worse, strict=True)]
    middle = statistics.median(ratios)
    ours, peer = statistics.median(better), statistics.median(worse)
    return (
        f"| {name} | {ours:.4g} | {peer:.4g} | {middle:.2f} | {min(ratios):.2f}-{max(ratios):.2f} "
        f"| {bar} |"
    )


def print_table(title: str, rows: list[str]) -> None:
    """Markdown, with what the figures were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    print(f"\n{title}\n\n{packages}; load {os.getloadavg()[0]:.1f}\n")
    print("| what | ours | peer | ratio | spread | bar |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads in one call: other work on the machine lengthens it little."""
    started = time.process_time()
    work()
    return time.process_time() - started
