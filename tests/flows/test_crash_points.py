"""The tools of the kill campaign: points that exist, and an injector that kills the group."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from operator import attrgetter
from pathlib import Path

import pytest

from still_core.store.crashpoint import CRASHPOINTS
from tests.fixtures import crash_injection
from tests.fixtures.crash_points import POINTS, CrashPoint, chosen, drawn
from tests.fixtures.loop_campaign import LoopRecord, Place, disturb, undisturbed

FAMILY = """
import subprocess, sys, colorsys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10)"])
print(child.pid, flush=True)
colorsys.rgb_to_hsv(0, 0, 0)
print("first", flush=True)
colorsys.rgb_to_hsv(0, 0, 0)
print("second", flush=True)
"""


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_every_crash_point_names_a_function_that_exists(point: CrashPoint) -> None:
    module = importlib.import_module(point.module)
    assert callable(attrgetter(point.function)(module))
    assert not point.argument or point.argument in CRASHPOINTS


def test_every_point_is_armed_equally_often_and_fires_once_in_a_loop() -> None:
    assert len({point.name for point in POINTS}) == len(POINTS)
    armed: Counter[str] = Counter()
    for loop in range(len(POINTS)):
        armed.update(chosen(f"0/{loop}", armed, 10))
    assert armed == {point.name: 10 for point in POINTS}
    names = chosen("0/0", Counter(), 10)
    assert {plan["name"] for plan in drawn("0/0", names, {names[3]})} == {*names} - {names[3]}


@pytest.mark.parametrize("before", [True, False])
def test_the_injector_kills_the_group_at_the_second_call(before: bool, tmp_path: Path) -> None:
    point = CrashPoint(name="hue", module="colorsys", function="rgb_to_hsv", before=before)
    shutil.copy(crash_injection.__file__, tmp_path / "sitecustomize.py")
    (tmp_path / "plan.json").write_text(json.dumps([point.plan(2)]))
    family = subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child, *lines = family.communicate(timeout=30)[0].split()
    assert (family.returncode, lines) == (-signal.SIGKILL, ["first"])
    deadline = time.monotonic() + 5
    while _lives(int(child)):
        assert time.monotonic() < deadline, "the child outlived the kill"
    assert (tmp_path / crash_injection.NEVER_AGAIN).read_text() == "hue\n"


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def campaign(tmp_path: Path, variant: str, armed: list[str]) -> LoopRecord:
    toy = Path(crash_injection.__file__).with_name("toy_loop.py")
    place = Place(
        folder=tmp_path / "loops",
        ray=tmp_path / "ray",
        store_root=lambda name: str(tmp_path / "stores" / name),
        prefect={},
        command=lambda folder, root: [sys.executable, str(toy), root, variant],
    )
    record = LoopRecord(kind="points", seed="0/0", store="local", server="none", armed=armed)
    disturb(place, undisturbed(place, "undisturbed"), record, most_kills=10)
    return record


def test_a_killed_loop_is_started_again_until_it_ends_and_counted(tmp_path: Path) -> None:
    armed = ["shard written, not acknowledged", "objects written, before the manifest"]
    record = campaign(tmp_path, "good", armed)
    assert record.failures == []
    assert sorted(record.kills) == sorted(armed)
    assert (record.starts, record.rollouts, record.lost, record.rows_twice) == (3, 12, 0, 0)
    assert (record.tokens, record.tokens_again) == (12 * 8, 0)


def test_a_loop_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    record = campaign(tmp_path, "early", ["before a shard is written"])
    assert record.kills == ["before a shard is written"]
    assert "is lost" in record.failures[0]
