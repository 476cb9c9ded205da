"""What the store and the bank cost beside the bare operation, side by side.

python tests/benchmarks/store.py [--pairs 5]
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
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow
import s3fs

from still_core.rollout.bank import RolloutBank
from still_core.store import Store
from tests.fixtures.crash_campaign import make_rollout
from tests.fixtures.s3 import BUCKET, environment, start_server, stop_server

MIB = 2**20
FILE_MIB = 64
NUM_ROLLOUTS = 4000
TOKENS = 500

Operation = Callable[[], object]


def main() -> None:
    """Run all comparisons and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weed").mkdir()
        server, endpoint = start_server(folder / "weed")
        os.environ.update(environment(endpoint))
        try:
            _print_ratios(folder, pairs)
            _print_latencies(folder, pairs)
        finally:
            stop_server(server)


def _print_ratios(folder: Path, pairs: int) -> None:
    source = folder / "weights.safetensors"
    source.write_bytes(os.urandom(FILE_MIB * MIB))
    local, remote = Store(folder / "store"), Store(f"s3://{BUCKET}/bench", cache=folder / "cache")
    bare = s3fs.S3FileSystem(skip_instance_cache=True)

    def copy_and_fsync() -> None:
        target = folder / uuid.uuid4().hex
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        target.unlink()

    def publish(store: Store) -> Operation:
        def run() -> None:
            stamp = uuid.uuid4().hex
            with source.open("r+b") as file:
                file.write(stamp.encode())
            store.publish("bench", stamp, {"w": source})

        return run

    def fetch() -> None:
        handle = remote.list("bench")[-1]
        Store(remote.root, cache=folder / uuid.uuid4().hex).fetch(handle)

    comparisons: list[tuple[str, Operation, Operation]] = [
        (
            f"publish {FILE_MIB} MiB to a folder / copy and fsync",
            publish(local),
            copy_and_fsync,
        ),
        (
            f"publish {FILE_MIB} MiB to S3 / bare s3fs put_file",
            publish(remote),
            lambda: bare.put_file(str(source), f"{BUCKET}/bare/{uuid.uuid4().hex}"),
        ),
        (
            f"fetch {FILE_MIB} MiB from S3 / bare s3fs get_file",
            fetch,
            lambda: bare.get_file(bare.ls(f"{BUCKET}/bare")[0], str(folder / uuid.uuid4().hex)),
        ),
    ]
    print("| ratio of times | median | min | max | ours (s) | bare (s) | pairs |")
    print("|---|---|---|---|---|---|---|")
    for name, ours, other in comparisons:
        times = [(_timed(ours), _timed(other)) for _ in range(pairs)]
        ratios = [mine / bare_s for mine, bare_s in times]
        mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"| {name} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} "
            f"| {mine:.2f} | {theirs:.2f} | {pairs} |",
            flush=True,
        )


def _print_latencies(folder: Path, pairs: int) -> None:
    rollouts = [
        replace(
            make_rollout(0, index),
            text="x" * 4 * TOKENS,
            token_ids=tuple(range(TOKENS)),
            logprobs=(-0.5,) * TOKENS,
        )
        for index in range(NUM_ROLLOUTS)
    ]
    print("\n| operation | folder: median, min-max | S3: median, min-max |\n|---|---|---|")
    columns = []
    for kind in ("folder", "S3"):
        columns.append([_measure_once(folder, kind, rollouts) for _ in range(pairs)])
    for name in columns[0][0]:
        cells = []
        for runs in columns:
            values = [run[name] for run in runs]
            cells.append(f"{statistics.median(values):.4g}, {min(values):.4g}-{max(values):.4g}")
        print(f"| {name} | {' | '.join(cells)} |")
    print(
        f"\nPython {platform.python_version()}, pyarrow {pyarrow.__version__}, s3fs "
        f"{s3fs.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


def _measure_once(folder: Path, kind: str, rollouts: list) -> dict[str, float]:
    name = uuid.uuid4().hex
    root = str(folder / name) if kind == "folder" else f"s3://{BUCKET}/{name}"
    store = Store(root, cache=folder / f"{name}-cache")
    store.check_writable()
    million = len(rollouts) * TOKENS / 1e6
    cpu, wall = time.process_time(), time.perf_counter()
    with RolloutBank(store).writer(owner="bench") as writer:
        for rollout in rollouts:
            writer.append(rollout)
    found = {
        "bank 1M tokens (CPU s)": (time.process_time() - cpu) / million,
        "bank 1M tokens (wall s)": (time.perf_counter() - wall) / million,
    }
    small = store.publish("small", "1", {"f": b"x"})
    many = store.publish("many", "1", {f"f{n}": b"%d" % n for n in range(100)})
    ids = [rollout.id for rollout in rollouts]
    fresh = RolloutBank(Store(root, cache=folder / f"{name}-cache-2"))
    first = _timed(lambda: fresh.get(ids[:128]))
    again = _timed(lambda: fresh.get(ids))
    return {
        **found,
        "exists, 1 file (s)": _timed(lambda: store.exists(small)),
        "exists, 100 files (s)": _timed(lambda: store.exists(many)),
        f"first look for 128 of {len(rollouts)} rollouts (s)": first,
        f"all {len(rollouts)} rollouts with tokens (s)": again,
        "lease taken and released (s)": _timed(
            lambda: store.lease("b", ttl_s=30, owner="b").release()
        ),
    }


def _timed(run: Operation) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
