"""Run the store's fault campaigns in full and print what was run, what passed, and the seeds.

python tests/benchmarks/store_campaigns.py                    all, about an hour on two cores
python tests/benchmarks/store_campaigns.py crashes-local races-s3 --share 0.1
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.store import Store
from tests.faulty_s3 import FaultyS3
from tests.fixtures.crash_campaign import FlowRunner, crash_at_points, crash_at_random, points_for
from tests.fixtures.damage_campaign import folder_stores, read_trusting, run_damage
from tests.fixtures.fault_campaign import TrustingStore, run_faults
from tests.fixtures.race_campaign import run_races
from tests.fixtures.s3 import BUCKET, environment, start_server, stop_server

Row = tuple[str, int, int, str, list[str]]
"""Campaign, runs, passed, seeds and facts, failures."""


class Campaigns:
    """Each campaign as a method; `share` scales all counts."""

    def __init__(self, folder: Path, share: float, endpoint: str) -> None:
        self.folder, self.share, self.endpoint = folder, share, endpoint

    def crashes_local(self) -> list[Row]:
        """Named points x 10, 200 random kills, two known-bad writers, on a folder."""
        return self._crashes("local")

    def crashes_s3(self) -> list[Row]:
        """The same on S3."""
        return self._crashes(self._root("crash"))

    def races_local(self) -> list[Row]:
        """100 pairs of identical flows."""
        return self._races("local")

    def races_s3(self) -> list[Row]:
        """The same on S3."""
        return self._races(self._root("race"))

    def faults_s3(self) -> list[Row]:
        """500 runs through the faulty proxy, and the reader that trusts the wire."""
        proxy = FaultyS3(self.endpoint)
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        try:
            seeds = range(self._count(500))
            good = run_faults(proxy, self._root("fault"), self._sub("fault"), seeds)
            bad = run_faults(
                proxy,
                self._root("trusting"),
                self._sub("trusting"),
                range(self._count(50)),
                kind=TrustingStore,
                faults=("flip_download", "truncate"),
            )
        finally:
            os.environ["AWS_ENDPOINT_URL"] = self.endpoint
            proxy.close()
        facts = (
            f"seeds 0-{len(seeds) - 1}; {good.requests} requests, {sum(good.met.values())} faults "
            f"met {good.met}; {good.all_right} runs without any refusal, "
            f"{good.refused_steps} steps refused in one line"
        )
        return [
            ("faulty S3", good.run, good.passed, facts, good.failures),
            ("known-bad: trusts the wire", bad.run, bad.passed, "must fail", bad.failures),
        ]

    def damage(self) -> list[Row]:
        """200 mutations on a folder and on S3, and the reader that trusts names."""
        seeds = range(self._count(200))
        local = run_damage(folder_stores(self._sub("damage")), seeds)
        root, cache = self._root("damage"), self._sub("damage-cache")
        remote = run_damage(lambda s: Store(f"{root}/{s}", cache=cache / str(s)), seeds)
        bad = run_damage(folder_stores(self._sub("bad")), seeds, read=read_trusting)
        facts = f"seeds 0-{len(seeds) - 1}; {len(local.kinds)} kinds"
        return [
            ("damage, folder", local.run, local.passed, facts, local.failures),
            ("damage, S3", remote.run, remote.passed, facts, remote.failures),
            ("known-bad: trusts names", bad.run, bad.passed, "must fail", bad.failures),
        ]

    def _crashes(self, root: str) -> list[Row]:
        kind = "S3" if root.startswith("s3://") else "folder"
        runner = FlowRunner(root, self._sub(f"crash-{kind}"), large=kind == "S3")
        points = points_for(root)
        named = crash_at_points(runner, points, range(1, self._count(10) + 1))
        seeds = range(self._count(200))
        random = crash_at_random(runner, seeds)
        rows = [
            (
                f"{c.name}, {kind}",
                c.run,
                c.passed,
                f"{seeds_text}; {c.killed} killed, {c.drawn_again} of {c.drawn} rollouts drawn "
                "again, none of them acknowledged",
                c.failures,
            )
            for c, seeds_text in [
                (named, f"{len(points)} points x arrivals 1-{self._count(10)}"),
                (random, f"seeds 0-{len(seeds) - 1}"),
            ]
        ]
        if kind == "folder":
            for variant, point in [
                ("manifest-first", "before-object"),
                ("ack-early", "before-shard"),
            ]:
                bad = FlowRunner(root, self._sub(f"bad-{variant}"), variant=variant)
                c = crash_at_points(bad, [point], [1])
                rows.append((f"known-bad: {variant}", c.run, c.passed, "must fail", c.failures))
        return rows

    def _races(self, root: str) -> list[Row]:
        kind = "S3" if root.startswith("s3://") else "folder"
        count = self._count(100)
        good = run_races(root, self._sub(f"race-{kind}"), range(count))
        rows = [(f"races, {kind}", good.run, good.passed, f"seeds 0-{count - 1}", good.failures)]
        if kind == "folder":
            bad = run_races(root, self._sub("race-bad"), range(self._count(20)), leased=False)
            rows.append(("known-bad: no lease", bad.run, bad.passed, "must fail", bad.failures))
        return rows

    def _count(self, full: int) -> int:
        return max(1, round(full * self.share))

    def _root(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def _sub(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        return path


def main() -> None:
    """Run the campaigns asked for and print a table."""
    known = [name for name in vars(Campaigns) if not name.startswith("_")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(n.replace("_", "-") for n in known))
    parser.add_argument("--share", type=float, default=1.0, help="share of the full counts")
    options = parser.parse_args()
    wanted = [name.replace("-", "_") for name in options.names] or known
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weed").mkdir()
        server, endpoint = start_server(folder / "weed")
        os.environ.update(environment(endpoint))
        try:
            campaigns = Campaigns(folder, options.share, endpoint)
            print("| campaign | run | passed | seconds | seeds and facts |\n|---|---|---|---|---|")
            failed = [text for one in wanted for text in _report(getattr(campaigns, one))]
        finally:
            stop_server(server)
    print("\n".join(failed))
    raise SystemExit(bool(failed))


def _report(campaign: Callable[[], list[Row]]) -> list[str]:
    """Print the rows of one campaign; returns what should not have happened."""
    started = time.monotonic()
    rows = campaign()
    seconds = time.monotonic() - started
    wrong = []
    for name, run, passed, facts, failures in rows:
        print(f"| {name} | {run} | {passed} | {seconds:.0f} | {facts} |", flush=True)
        if name.startswith("known-bad"):
            wrong += [f"{name} was not caught"] if passed == run else []
        else:
            wrong += [f"{name}: {failure}" for failure in failures]
    return wrong


if __name__ == "__main__":
    main()
