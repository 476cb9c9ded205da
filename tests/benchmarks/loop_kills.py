"""Kill the whole small loop at random moments and at named points, and say what that cost.

    python tests/benchmarks/loop_kills.py --kills 200 --points 300 [--store local|s3] [--seed 0]

The loop is real: Prefect, Ray, vLLM, TRL. Each `still run` is killed with all its processes by
SIGKILL and started again with the same command until it ends. Every finished loop appends one line
to the results file; started again, the script goes on where it stopped, with the next seed, until
`--kills` random kills and `--points` kills at named points are reached. `--minutes` ends it
earlier. Every fifth loop starts a Prefect server of its own with each run; the others share one.
A kill costs about half a minute. Two campaigns side by side, on a folder and on S3, take a core and
`--threads 1` each (`taskset -c 0`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fixtures.crash_points import POINTS, chosen
from tests.fixtures.loop_campaign import (
    LoopRecord,
    Outcome,
    Place,
    disturb,
    still_run,
    to_json,
    undisturbed,
)
from tests.fixtures.s3 import BUCKET, environment, start_server, stop_server

OWN_SERVER_EVERY = 5
POINTS_PER_LOOP = 16
MOST_KILLS = 60
"""In one loop."""
KINDS = {"none": "undisturbed", "random": "random moments", "points": "named points"}


class Results:
    """The file of finished loops."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def records(self, store: str) -> list[LoopRecord]:
        """Loops on this kind of store so far."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        records = [LoopRecord(**json.loads(line)) for line in lines]
        return [record for record in records if record.store == store]

    def append(self, record: LoopRecord) -> None:
        """One line, durable."""
        with self.path.open("a") as file:
            file.write(to_json(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truth(self, place: Place, store: str) -> Outcome:
        """The undisturbed loop on this kind of store, run once."""
        path = self.path.with_name(f"{self.path.stem}-undisturbed-{store}.json")
        if not path.exists():
            path.write_text(to_json(undisturbed(place, "undisturbed")))
        return Outcome(**json.loads(path.read_text()))


@contextmanager
def prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """A server for many runs; yields the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "PREFECT_HOME": str(folder / "server"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **own},
        stdout=(folder / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}/api"
        _await(f"{address}/health", process)
        yield {"PREFECT_API_URL": address}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the Prefect server does not start")


def campaign(
    results: Results, place: Place, options: argparse.Namespace, shared: dict[str, str]
) -> None:
    """Loops until the counts are reached or the time is over."""
    until = time.monotonic() + 60 * options.minutes
    truth = results.truth(with_server(place, shared), options.store)
    for kind, wanted in (("none", 0), ("random", options.kills), ("points", options.points)):
        while time.monotonic() < until:
            done = [r for r in results.records(options.store) if r.kind == kind]
            if kind == "none" and len(done) >= options.undisturbed:
                break
            left = wanted - sum(len(record.kills) for record in done)
            if kind != "none" and left <= 0:
                break
            own = len(done) % OWN_SERVER_EVERY == OWN_SERVER_EVERY - 1
            record = LoopRecord(
                kind=kind,
                seed=f"{options.seed}/{len(done)}",
                store=options.store,
                server="own" if own else "shared",
            )
            if kind == "points":
                before = Counter(name for r in done for name in r.armed)
                record.armed = chosen(record.seed, before, POINTS_PER_LOOP)
            there = with_server(place, {} if own else shared)
            disturb(there, truth, record, most_kills=min(left, MOST_KILLS))
            results.append(record)
            said = f"ok {record.passed} {record.failures[:3]}"
            print(
                f"{kind} {record.seed}: {len(record.kills)} kills, {record.seconds:.0f} s, {said}",
                file=sys.stderr,
                flush=True,
            )


def with_server(place: Place, prefect: dict[str, str]) -> Place:
    """The same place with another Prefect server."""
    return replace(place, prefect=prefect)


def table(records: list[LoopRecord]) -> Iterator[str]:
    """What was found, as Markdown."""
    yield "| kills | store | loops | passed | kills | lost | artefacts that differ | rollouts with "
    yield "other text / log-probs | finished tokens | generated again | seconds |\n"
    yield "|" + "---|" * 11 + "\n"
    for (kind, store), some in sorted(_groups(records).items()):
        tokens, again = sum(r.tokens for r in some), sum(r.tokens_again for r in some)
        cells = (
            KINDS[kind],
            store,
            len(some),
            sum(r.passed for r in some),
            sum(len(r.kills) for r in some),
            sum(r.lost for r in some),
            sum(len(r.other_artefacts) for r in some),
            f"{sum(r.other_texts for r in some)} / {sum(r.other_logprobs for r in some)} of "
            f"{sum(r.rollouts for r in some)}",
            f"{tokens:,}",
            f"{again:,} ({again / max(tokens, 1):.2%})",
            f"{sum(r.seconds for r in some):.0f}",
        )
        yield "| " + " | ".join(str(cell) for cell in cells) + " |\n"
    fired = Counter(k for r in records if r.kind == "points" for k in r.kills)
    if fired:
        armed = Counter(name for r in records for name in r.armed)
        yield "\n| point | armed | kills | finished tokens generated again |\n|---|---|---|---|\n"
        again_at: Counter[str] = Counter()
        for record in records:
            for kill, _, tokens in record.again:
                again_at[kill] += tokens
        for point in POINTS:
            name = point.name
            yield f"| {name} | {armed[name]} | {fired[name]} | {again_at[name]} |\n"
    yield "".join(f"\n{r.kind} {r.seed}: {f}" for r in records for f in r.failures[:3])


def _groups(records: list[LoopRecord]) -> dict[tuple[str, str], list[LoopRecord]]:
    groups: dict[tuple[str, str], list[LoopRecord]] = {}
    for record in records:
        groups.setdefault((record.kind, record.store), []).append(record)
    return groups


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments")
    parser.add_argument("--points", type=int, default=300, help="kills at named points")
    parser.add_argument("--undisturbed", type=int, default=1, help="loops without a kill")
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="that a rank computes with")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no loop after these")
    parser.add_argument("--results", type=Path, default=Path(".still/loop_kills/results.jsonl"))
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print the table; ends with 1 where something failed."""
    options = parsed()
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(options.results.resolve())
    with tempfile.TemporaryDirectory(prefix="lk-") as scratch:
        folder = Path(scratch)
        server = None
        if options.store == "s3":
            (folder / "weed").mkdir()
            server, endpoint = start_server(folder / "weed")
            os.environ.update(environment(endpoint))
        place = Place(
            folder=results.path.parent / f"loops-{options.store}",
            ray=folder / "ray",
            store_root=lambda name: (
                f"s3://{BUCKET}/{name}" if server else str(folder / "stores" / name)
            ),
            prefect={},
            command=partial(still_run, threads_per_rank=options.threads),
        )
        try:
            with prefect_server(folder) as shared:
                campaign(results, place, options, shared)
        finally:
            if server is not None:
                stop_server(server)
    records = results.records(options.store)
    print("".join(table(records)))
    raise SystemExit(not all(record.passed for record in records))


if __name__ == "__main__":
    main()
