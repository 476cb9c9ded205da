"""What stages show in the UI: model text stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from still_core.store import Store
from still_core.store.bundle import publish_tables
from tasks.artifacts import Shown, table
from tasks.demonstrations import show_drafts
from tasks.explore import show_exploration

HOSTILE = "```\n~~~~\n````` \n\r`````\n# Owned\n<script>alert(1)</script>\n\u202e\x1b[2J\x0b`````\n"


def tokens_of(shown: list[Shown], key: str) -> list[Any]:
    (page,) = (one for one in shown if one.key == key)
    return MarkdownIt().parse(page.data)


def check_is_shown_as_text(tokens: list[Any]) -> None:
    assert [token.type for token in tokens] == [
        "paragraph_open",
        "inline",
        "paragraph_close",
        "fence",
    ]
    assert "# Owned" in tokens[-1].content
    assert not set("\u202e\x1b\x0b") & set(tokens[-1].content)


def test_a_hostile_rollout_can_not_close_its_fence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    selected = {"problem_id": "p\n\n# p", "outcome": "correct", "sample_index": 0, "text": HOSTILE}
    tables = {"groups": [], "attempts": [], "selected": [selected]}
    handle = publish_tables(store, "explore", "1", tables, meta={"round": 1})
    check_is_shown_as_text(tokens_of(list(show_exploration(store, handle)), "sample-rollouts"))


def test_a_hostile_draft_can_not_close_its_fence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = {"style": "r1", "teacher": "t", "state": "complete", "outcome": "correct"}
    draft = {**row, "defect": "", "text": HOSTILE}
    handle = publish_tables(store, "drafts", "1", {"drafts": [draft], "funnel": []})
    check_is_shown_as_text(tokens_of(list(show_drafts(store, handle)), "sample-drafts"))


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), -float("inf")])
def test_a_figure_that_is_not_finite_is_null_in_a_table(figure: float) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    shown = table("curve", [{"step": 1, "grad_norm": figure}], "Curve")
    assert json.loads(shown.data, parse_constant=refuse) == [{"step": 1, "grad_norm": None}]
