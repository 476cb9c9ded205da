"""Run the store's fault campaigns in full and print what was run, what passed, and the seeds.

python tests/benchmarks/store_campaigns.py                    all, about an hour on two cores
python tests/benchmarks/store_campaigns.py crashes-local races-s3 --share 0.1
python tests/benchmarks/store_campaigns.py faults-s3 --part 1/4 --results faults.jsonl

`--part K/N` runs every N-th point or seed from the K-th on, `--results` gathers the parts in a file
and prints the table of all that stands in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from still_core.store import Store
from tests.faulty_s3 import FaultyS3
from tests.fixtures.crash_campaign import (
    Campaign,
    FlowRunner,
    crash_at_points,
    crash_at_random,
    points_for,
)
from tests.fixtures.damage_campaign import folder_stores, read_trusting, run_damage
from tests.fixtures.fault_campaign import FaultCampaign, TrustingStore, run_faults
from tests.fixtures.race_campaign import RaceCampaign, run_races
from tests.fixtures.s3 import BUCKET, environment, start_server, stop_server
from tests.fixtures.stage_races import run_stage_races


@dataclass
class Row:
    """What one campaign did, or one part of it."""

    name: str
    run: int
    passed: int
    facts: dict[str, int] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Row) -> None:
        """Take in another part of the same campaign."""
        self.run += other.run
        self.passed += other.passed
        self.seconds += other.seconds
        self.seeds = sorted(self.seeds + other.seeds)
        self.failures += other.failures
        for name, count in other.facts.items():
            self.facts[name] = self.facts.get(name, 0) + count

    def wrong(self) -> list[str]:
        """What should not have happened."""
        if self.name.startswith("known-bad"):
            return [f"{self.name} was not caught"] if self.passed == self.run else []
        return [f"{self.name}: {failure}" for failure in self.failures]

    def line(self) -> str:
        """One row of the table."""
        facts = [f"{count} {name}" for name, count in self.facts.items()]
        if self.seeds:
            facts.insert(0, f"seeds {self.seeds[0]}-{self.seeds[-1]}")
        figures = f"{self.run} | {self.passed} | {self.seconds:.0f}"
        return f"| {self.name} | {figures} | {', '.join(facts)} |"


class Campaigns:
    """Each campaign as a method; `share` scales all counts, `part` takes every N-th from K on."""

    def __init__(self, folder: Path, share: float, part: tuple[int, int], endpoint: str) -> None:
        self.folder, self.share, self.part, self.endpoint = folder, share, part, endpoint

    def crashes_local(self) -> list[Row]:
        """Named points x 10, 200 random kills, two known-bad writers, on a folder."""
        rows = self._crashes("local")
        for variant, point in (("manifest-first", "before-object"), ("ack-early", "before-shard")):
            bad = FlowRunner("local", self._sub(f"bad-{variant}"), variant=variant)
            campaign = crash_at_points(bad, [point])[point]
            rows.append(_crash_row(f"known-bad: {variant}", campaign))
        return rows

    def crashes_s3(self) -> list[Row]:
        """The same on S3."""
        return self._crashes(self._root("crash"))

    def races_local(self) -> list[Row]:
        """100 pairs of identical flows, and 20 that look and do not lease."""
        good = self._races("races, folder", "local", self._seeds(100))
        return [good, self._races("known-bad: no lease", "local", self._seeds(20), leased=False)]

    def races_s3(self) -> list[Row]:
        """The same on S3."""
        return [self._races("races, S3", self._root("race"), self._seeds(100))]

    def races_stage(self) -> list[Row]:
        """100 pairs of identical Prefect flows of one stage, and 10 whose cache has no lock."""
        rows = []
        for name, full, locked in (("stage races", 100, True), ("known-bad: no lock", 10, False)):
            folder, seeds = self._sub(name.replace(": ", "-").replace(" ", "-")), self._seeds(full)
            found = run_stage_races(str(folder / "stores"), folder, seeds, locked=locked)
            rows.append(_race_row(name, seeds, found))
        return rows

    def faults_s3(self) -> list[Row]:
        """500 runs through the faulty proxy, and the reader that trusts the wire."""
        proxy = FaultyS3(self.endpoint)
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        seeds, few = self._seeds(500), self._seeds(50)
        try:
            good = run_faults(proxy, self._root("fault"), self._sub("fault"), seeds)
            bad = run_faults(
                proxy,
                self._root("trusting"),
                self._sub("trusting"),
                few,
                kind=TrustingStore,
                faults=("flip_download", "truncate"),
            )
        finally:
            os.environ["AWS_ENDPOINT_URL"] = self.endpoint
            proxy.close()
        return [
            _fault_row("faulty S3", seeds, good),
            _fault_row("known-bad: trusts the wire", few, bad),
        ]

    def damage(self) -> list[Row]:
        """200 mutations on a folder and on S3, and the reader that trusts names."""
        seeds = self._seeds(200)
        local = run_damage(folder_stores(self._sub("damage")), seeds)
        root, cache = self._root("damage"), self._sub("damage-cache")
        remote = run_damage(lambda s: Store(f"{root}/{s}", cache=cache / str(s)), seeds)
        bad = run_damage(folder_stores(self._sub("bad")), seeds, read=read_trusting)
        return [
            Row(name, found.run, found.passed, dict(found.kinds), list(seeds), found.failures)
            for name, found in (
                ("damage, folder", local),
                ("damage, S3", remote),
                ("known-bad: trusts names", bad),
            )
        ]

    def _crashes(self, root: str) -> list[Row]:
        kind = "S3" if root.startswith("s3://") else "folder"
        runner = FlowRunner(root, self._sub(f"crash-{kind}"), large=kind == "S3")
        first, step = self.part
        points = points_for(root)[first - 1 :: step]
        named = crash_at_points(runner, points, max(1, round(10 * self.share)))
        rows = [_crash_row(f"kill -9 at {point}, {kind}", one) for point, one in named.items()]
        seeds = self._seeds(200)
        row = _crash_row(f"kill -9 at random, {kind}", crash_at_random(runner, seeds))
        row.seeds = list(seeds)
        return [*rows, row]

    def _races(self, name: str, root: str, seeds: Sequence[int], *, leased: bool = True) -> Row:
        folder = self._sub(name.replace(": ", "-").replace(", ", "-").replace(" ", "-"))
        return _race_row(name, seeds, run_races(root, folder, seeds, leased=leased))

    def _seeds(self, full: int) -> Sequence[int]:
        first, step = self.part
        return range(max(1, round(full * self.share)))[first - 1 :: step]

    def _root(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def _sub(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        return path


def _crash_row(name: str, campaign: Campaign) -> Row:
    facts = {
        "killed": campaign.killed,
        "rollouts drawn": campaign.drawn,
        "drawn again, none of them acknowledged": campaign.drawn_again,
    }
    return Row(name, campaign.run, campaign.passed, facts, [], campaign.failures)


def _race_row(name: str, seeds: Sequence[int], found: RaceCampaign) -> Row:
    return Row(name, found.run, found.passed, {}, list(seeds), found.failures)


def _fault_row(name: str, seeds: Sequence[int], found: FaultCampaign) -> Row:
    facts = {
        "requests": found.requests,
        **dict(sorted(found.met.items())),
        "runs without any refusal": found.all_right,
        "steps refused in one line": found.refused_steps,
    }
    return Row(name, found.run, found.passed, facts, list(seeds), found.failures)


def run_campaigns(
    names: Sequence[str], share: float, part: tuple[int, int], results: Path | None
) -> list[Row]:
    """Run campaigns beside an S3 server of their own; returns the rows, older parts added."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weed").mkdir()
        server, endpoint = start_server(folder / "weed")
        os.environ.update(environment(endpoint))
        rows: dict[str, Row] = {}
        for line in results.read_text().splitlines() if results and results.exists() else ():
            _gather(rows, Row(**json.loads(line)))
        try:
            campaigns = Campaigns(folder, share, part, endpoint)
            for one in names:
                started = time.monotonic()
                fresh: list[Row] = getattr(campaigns, one)()
                for row in fresh:
                    row.seconds = (time.monotonic() - started) / len(fresh)
                    if results is not None:
                        with results.open("a") as file:
                            file.write(json.dumps(asdict(row)) + "\n")
                    _gather(rows, row)
        finally:
            stop_server(server)
    return list(rows.values())


def _gather(rows: dict[str, Row], row: Row) -> None:
    if row.name in rows:
        rows[row.name].add(row)
    else:
        rows[row.name] = row


def main() -> None:
    """Run the campaigns asked for, print a table, and end with 1 where something failed."""
    known = [name for name in vars(Campaigns) if not name.startswith("_")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(n.replace("_", "-") for n in known))
    parser.add_argument("--share", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--part", default="1/1", help="K/N: the K-th of N parts, from 1")
    parser.add_argument("--results", type=Path, help="file that gathers the parts")
    options = parser.parse_args()
    wanted = [name.replace("-", "_") for name in options.names] or known
    first, _, step = options.part.partition("/")
    rows = run_campaigns(wanted, options.share, (int(first), int(step)), options.results)
    print("| campaign | run | passed | seconds | seeds and facts |\n|---|---|---|---|---|")
    print("\n".join(row.line() for row in rows))
    failed = [text for row in rows for text in row.wrong()]
    print("\n".join(failed))
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
