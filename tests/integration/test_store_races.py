"""Two identical flows started together: one result, no double work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.race_campaign import run_races


def test_identical_flows_do_the_work_once(tmp_path: Path) -> None:
    campaign = run_races("local", tmp_path, range(6))
    assert campaign.failures == []


@pytest.mark.integration
def test_identical_flows_do_the_work_once_on_s3(s3_root: str, tmp_path: Path) -> None:
    assert run_races(s3_root, tmp_path, range(3)).failures == []


def test_flows_that_only_look_before_they_work_are_caught(tmp_path: Path) -> None:
    campaign = run_races("local", tmp_path, range(3), leased=False)
    assert any("2 bodies" in failure for failure in campaign.failures)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("back_end", ["local", "s3"])
def test_a_hundred_races(back_end: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = "local" if back_end == "local" else request.getfixturevalue("s3_root")
    assert run_races(root, tmp_path, range(100)).failures == []
