"""Drafts on their way to a verdict."""

from __future__ import annotations

import json

import pytest

from still_core.distil.drafts import Draft, DraftState, judge_drafts
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.raw import RawResponse
from still_core.progress import Progress
from still_core.verify import VerifierPool, pool


def slow_program(number: int) -> Draft:
    problem = Problem(
        id=f"p{number}",
        statement=f"Write f(x) = x + {number}.",
        gold=json.dumps({"tests": f"assert f(1) == {1 + number}"}),
        kind=AnswerKind.CODE,
        domain="code",
        bucket=Bucket.OTHER,
        source="test",
        row=number,
    )
    solution = f"```python\nimport time\ntime.sleep(0.3)\ndef f(x):\n    return x + {number}\n```"
    raw = RawResponse(
        id=f"r{number}", problem=problem, text="", teacher="t", source_file="f", row=number
    )
    return Draft(raw=raw, state=DraftState.COMPLETE, style="r1", thought="Add.", solution=solution)


def test_progress_is_told_while_slow_programs_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TELL_EVERY_S", 0.2)
    told: list[Progress] = []
    with VerifierPool() as verifier:
        judged = judge_drafts([slow_program(n) for n in range(4)], verifier, progress=told.append)
    assert [draft.outcome for draft in judged] == ["correct"] * 4
    assert told[0].done < told[-1].done == 4
