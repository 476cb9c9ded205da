"""Kill -9 anywhere: nothing acknowledged is lost, nothing counts twice, nothing partial is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.crash_campaign import (
    FlowRunner,
    crash_at_points,
    crash_at_random,
    points_for,
)


def test_every_named_crash_point_leaves_a_whole_store(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path)
    points = points_for("local")
    campaign = crash_at_points(runner, points, [1])
    assert campaign.failures == []
    # Each point is really passed: the process died there.
    assert (campaign.passed, campaign.killed) == (len(points), len(points))


def test_random_kills_leave_a_whole_store(tmp_path: Path) -> None:
    campaign = crash_at_random(FlowRunner("local", tmp_path), range(5))
    assert campaign.failures == []


@pytest.mark.integration
def test_crash_points_that_matter_on_s3(s3_root: str, tmp_path: Path) -> None:
    runner = FlowRunner(s3_root, tmp_path, large=True)
    points = ["after-object", "mid-multipart", "before-manifest", "after-shard", "mid-compaction"]
    campaign = crash_at_points(runner, points, [1])
    assert campaign.failures == []
    assert campaign.killed == campaign.run


def test_a_manifest_first_writer_is_caught(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path, variant="manifest-first")
    campaign = crash_at_points(runner, ["before-object"], [1])
    assert campaign.failures == ["before-object:1: stage-0 is published and not whole"]


def test_a_writer_that_acknowledges_early_is_caught(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path, variant="ack-early")
    campaign = crash_at_points(runner, ["before-shard"], [1])
    assert "is lost" in campaign.failures[0]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("back_end", ["local", "s3"])
def test_crash_campaign_in_full(back_end: str, request: pytest.FixtureRequest, tmp_path: Path):
    root = "local" if back_end == "local" else request.getfixturevalue("s3_root")
    runner = FlowRunner(root, tmp_path, large=back_end == "s3")
    named = crash_at_points(runner, points_for(root), range(1, 11))
    random = crash_at_random(runner, range(200))
    assert named.failures + random.failures == []
