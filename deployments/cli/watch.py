"""`still watch`: what a run is doing, and where it is stuck."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot, open_store
from still_core.heartbeat import GIVEN_UP, StageState, State, WorkerState, read_heartbeats
from still_core.report.text import duration, figure

if TYPE_CHECKING:
    from rich.console import Group

_COLOURS = {
    State.RUNNING: "green",
    State.ENDED: "dim",
    State.FAILED: "bold red",
    State.STALLED: "bold red",
    State.SILENT: "bold red",
}


def watch(
    run: Annotated[str, Parameter(help="Name of the run; the one heard of last if left out.")] = "",
    *,
    store: StoreRoot = DEFAULT_STORE,
    once: Annotated[bool, Parameter(help="Print one line per stage and end.")] = False,
) -> None:
    """Show the stages of a run as they go: done, rate, oldest request in flight, time left."""
    root = open_store(store)
    if once:
        states = read_heartbeats(root, run, left_out=partial(print, file=sys.stderr))
        print("\n".join(line(state, time.time()) for state in states) or _nothing(run))
        return
    from rich.live import Live

    with Live(refresh_per_second=2) as live:
        try:
            while True:
                left_out: list[str] = []
                states = read_heartbeats(root, run, left_out=left_out.append)
                live.update(_page(states, run, left_out))
                time.sleep(1.0)
        except KeyboardInterrupt:
            return


def line(state: StageState, now: float) -> str:
    """One stage in one line of plain text.

    Args:
        state: what was read.
        now: seconds since the epoch.
    """
    seen = state.seen_at(now)
    total = "?" if state.total is None else str(state.total)
    parts = [f"{state.stage}: {seen}", f"{state.done}/{total} {state.unit}"]
    if not seen.is_over():
        parts.append(f"{figure(state.rate)}/s")
        if state.oldest_s:
            parts.append(f"oldest request {duration(state.oldest_s)}")
        if state.seconds_left is not None:
            parts.append(f"left {duration(state.seconds_left)}")
    parts += [f"{name} {figure(value)}" for name, value in sorted(state.facts.items())]
    if seen is State.FAILED:
        parts.append(state.where)
    if seen is State.SILENT:
        silent = duration(now - state.written_at)
        parts.append(f"not heard for {silent} (pid {state.pid} on {state.host})")
    if seen is State.STALLED:
        still = duration(now - state.advanced_at)
        parts.append(f"no progress for {still}: {state.where}")
    parts += [_failures(worker) for worker in state.workers if worker.restarts]
    return ", ".join(parts)


def _failures(worker: WorkerState) -> str:
    if worker.phase == GIVEN_UP:
        return f"{worker.name} given up, because {worker.last_failure}"
    return f"{worker.name} restarted {worker.restarts} times, last because {worker.last_failure}"


def _page(states: list[StageState], run: str, left_out: list[str]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    now = time.time()
    missed = [Text(each, style="bold red") for each in left_out]
    if not states:
        return Group(Text(_nothing(run)), *missed)
    stages = Table(title=f"run {states[0].run}")
    for name in ("stage", "state", "done", "rate /s", "oldest", "left", "facts"):
        stages.add_column(name)
    trouble = []
    for state in states:
        seen = state.seen_at(now)
        left = "" if state.seconds_left is None else duration(state.seconds_left)
        stages.add_row(
            state.stage,
            Text(seen, style=_COLOURS[seen]),
            f"{state.done}/{'?' if state.total is None else state.total} {state.unit}",
            figure(state.rate),
            duration(state.oldest_s) if state.oldest_s else "",
            "" if seen.is_over() else left,
            "  ".join(f"{name} {figure(value)}" for name, value in sorted(state.facts.items())),
        )
        if seen in (State.STALLED, State.SILENT, State.FAILED):
            trouble.append(Text(line(state, now), style=_COLOURS[seen]))
    workers = Table(title="workers")
    for name in ("worker", "phase", "in flight", "oldest", "last step", "restarts", "place"):
        workers.add_column(name)
    for worker in states[-1].workers:
        workers.add_row(
            worker.name,
            worker.phase,
            str(worker.in_flight),
            duration(worker.oldest_s),
            duration(worker.last_step_s),
            f"{worker.restarts} {worker.last_failure}".strip(),
            f"pid {worker.pid} on {worker.node}",
        )
    return Group(stages, *([workers] if workers.row_count else []), *trouble, *missed)


def _nothing(run: str) -> str:
    name = f"run {run}" if run else "any run"
    return f"no heartbeat of {name} in this store: it has not started, or runs on another store"
