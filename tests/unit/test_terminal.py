"""What a person reads of progress."""

from __future__ import annotations

import math

import pytest

from still_core.progress import Progress
from still_core.terminal import describe_facts


@pytest.mark.parametrize(
    ("value", "said"),
    [(41.0, "41"), (2310.4, "2310"), (0.8214, "0.821"), (math.nan, "nan"), (-math.inf, "-inf")],
)
def test_a_figure_is_said_short_also_where_it_is_no_number(value: float, said: str) -> None:
    told = Progress(stage="train", done=1, total=2, unit="steps", facts={"grad_norm": value})
    assert describe_facts(told) == f"grad norm {said}"
