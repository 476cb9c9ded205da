"""Kill -9 anywhere: nothing acknowledged is lost, nothing counts twice, nothing partial is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.crash_campaign import (
    Campaign,
    FlowRunner,
    crash_at_points,
    crash_at_random,
    points_for,
)


def test_every_named_crash_point_leaves_a_whole_store(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path)
    points = points_for("local")
    campaigns = crash_at_points(runner, points)
    assert failures(campaigns) == []
    # Each point is really passed: the process died there.
    assert all((c.passed, c.killed) == (1, 1) for c in campaigns.values())


def test_random_kills_leave_a_whole_store(tmp_path: Path) -> None:
    campaign = crash_at_random(FlowRunner("local", tmp_path), range(5))
    assert campaign.failures == []


@pytest.mark.integration
def test_crash_points_that_matter_on_s3(s3_root: str, tmp_path: Path) -> None:
    runner = FlowRunner(s3_root, tmp_path, large=True)
    points = ["after-object", "mid-multipart", "before-manifest", "after-shard", "mid-compaction"]
    campaigns = crash_at_points(runner, points)
    assert failures(campaigns) == []
    assert all(campaign.killed == 1 for campaign in campaigns.values())


def test_a_manifest_first_writer_is_caught(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path, variant="manifest-first")
    campaigns = crash_at_points(runner, ["before-object"])
    assert failures(campaigns) == ["before-object:1: stage-0 is published and not whole"]


def test_a_writer_that_acknowledges_early_is_caught(tmp_path: Path) -> None:
    runner = FlowRunner("local", tmp_path, variant="ack-early")
    campaigns = crash_at_points(runner, ["before-shard"])
    assert "is lost" in failures(campaigns)[0]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("back_end", ["local", "s3"])
def test_crash_campaign_in_full(back_end: str, request: pytest.FixtureRequest, tmp_path: Path):
    root = "local" if back_end == "local" else request.getfixturevalue("s3_root")
    runner = FlowRunner(root, tmp_path, large=back_end == "s3")
    named = crash_at_points(runner, points_for(root), 10)
    random = crash_at_random(runner, range(200))
    assert failures(named) + random.failures == []


def failures(campaigns: dict[str, Campaign]) -> list[str]:
    return [text for campaign in campaigns.values() for text in campaign.failures]
