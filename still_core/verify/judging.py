"""What a worker does with one request."""

from __future__ import annotations

from typing import Any

from still_core.verify.verdict import Outcome


def judge_request(request: dict[str, Any]) -> dict[str, Any]:
    """Outcome and rule of one mathematical pair."""
    from math_verify import parse, verify

    gold = parse(f"${request['gold']}$", parsing_timeout=None)
    pred = parse(f"${request['pred']}$", parsing_timeout=None)
    if not pred:
        return {"outcome": Outcome.UNPARSABLE, "rule": "not_read"}
    same = verify(gold, pred, timeout_seconds=None)
    return {"outcome": Outcome.CORRECT if same else Outcome.WRONG, "rule": "symbolic"}
