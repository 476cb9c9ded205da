"""The code of docs/how-to/add-a-source.md, as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from still_core.problems.problem import Bucket
from still_core.problems.sources import ADAPTERS
from tests.unit.problems.test_sources import problem_of, read_row

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-source.md"


@pytest.fixture(autouse=True)
def adapter_of_the_page() -> Iterator[None]:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "olympiad"})
    yield
    del ADAPTERS["ours"]


def test_the_adapter_of_the_page_reads_a_row(tmp_path: Path) -> None:
    problem = problem_of({"text": "1+1?", "key": 2, "points": 3}, "ours", tmp_path)
    assert (problem.statement, problem.gold, problem.level) == ("1+1?", "2", 3.0)
    assert (problem.bucket, problem.licence) == (Bucket.HARD_MATH, "CC-BY-4.0")


def test_the_adapter_of_the_page_leaves_a_trial_round_out(tmp_path: Path) -> None:
    (left_out,) = read_row({"round": "trial"}, "ours", tmp_path).left_out
    assert left_out.reason == "trial"
