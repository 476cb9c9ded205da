"""Solution completion: what the bank has is not written again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from still_core.distil.completion import complete_drafts
from still_core.distil.drafts import Draft, DraftState, demonstrations_of
from still_core.errors import DataError
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.raw import RawResponse
from still_core.responses.response import Demonstration
from still_core.rollout.bank import RolloutBank
from still_core.rollout.bank_writer import BankWriter
from still_core.rollout.rollout import Completion, FinishReason, Rollout, RolloutRequest, Sampling
from still_core.store import Store


class WritingPool:
    """Writes one solution per request, three at a time; dies after `alive_for`."""

    capacity, engine_build, policy_digest, policy_version = 8, "scripted 1", "writer", 0

    def __init__(self, alive_for: int = 1000, closing: str = "<|end_of_solution|>") -> None:
        self.alive_for, self.closing = alive_for, closing
        self.written: list[str] = []
        self.waiting: list[RolloutRequest] = []
        self.tokenizer = SimpleNamespace(
            chat_template="plain",
            eos_token="<end>",
            apply_chat_template=lambda turns, **_: turns[-1]["content"],
        )

    def submit(self, requests: Iterable[RolloutRequest]) -> None:
        self.waiting += requests

    def pending(self) -> int:
        return len(self.waiting)

    def poll(self, timeout_s: float = 0.25) -> list[Rollout]:
        if len(self.written) >= self.alive_for:
            raise KeyboardInterrupt
        ended, self.waiting = self.waiting[:3], self.waiting[3:]
        self.written += [request.id for request in ended]
        return [self._write(request) for request in ended]

    def _write(self, request: RolloutRequest) -> Rollout:
        text = f"The sum of {request.problem_id} is \\boxed{{4}}.\n{self.closing}"
        completion = Completion(
            text=text, token_ids=(1, 2), logprobs=(-0.1, -0.2), finish_reason=FinishReason.STOP
        )
        return Rollout.of(request, completion)


def thought_alone(number: int) -> Draft:
    problem = Problem(
        id=f"p{number}",
        statement=f"{number}+1?",
        gold="4",
        kind=AnswerKind.TEXT,
        domain="math",
        bucket=Bucket.NORMAL_MATH,
        source="test",
        row=number,
    )
    raw = RawResponse(
        id=f"q{number}", problem=problem, text="Hmm.", teacher="t", source_file="f", row=number
    )
    return Draft(raw=raw, state=DraftState.NEEDS_SOLUTION, style="qwq", thought=f"Hmm, {number}.")


def complete(pool: Any, root: Path, prompt: str = "bare") -> list[Draft]:
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=16)
    drafts = [thought_alone(number) for number in range(7)]
    bank = RolloutBank(Store(root))
    return complete_drafts(drafts, pool, bank, prompt_name=prompt, sampling=sampling)


@pytest.mark.parametrize(
    ("prompt", "state"),
    [("still-3-short", DraftState.COMPLETE), ("bare", DraftState.DEFECTIVE)],
)
def test_a_solution_ends_with_the_mark_of_the_prompt(
    prompt: str, state: DraftState, tmp_path: Path
) -> None:
    written = complete(WritingPool(closing="</answer>"), tmp_path, prompt)
    assert {draft.state for draft in written} == {state}


def test_a_cut_off_completion_writes_only_the_solutions_that_are_missing(tmp_path: Path) -> None:
    undisturbed = complete(WritingPool(), tmp_path / "undisturbed")
    assert {draft.state for draft in undisturbed} == {DraftState.COMPLETE}
    first, second, third = WritingPool(alive_for=3), WritingPool(), WritingPool()
    with pytest.raises(KeyboardInterrupt):
        complete(first, tmp_path / "store")
    assert complete(second, tmp_path / "store") == undisturbed
    assert (len(first.written), len(second.written)) == (3, 4)
    assert not set(first.written) & set(second.written)
    assert complete(third, tmp_path / "store") == undisturbed
    assert third.written == []


def test_solutions_that_ended_with_one_that_the_bank_refuses_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = BankWriter.append

    def refuse_the_first(self: BankWriter, rollout: Rollout) -> None:
        if rollout.id == pool.written[0]:
            raise DataError("no shard holds it")
        append(self, rollout)

    pool = WritingPool()
    monkeypatch.setattr(BankWriter, "append", refuse_the_first)
    with pytest.raises(DataError, match="no shard holds it"):
        complete(pool, tmp_path)
    assert len(pool.written) == 3
    assert {row["id"] for row in RolloutBank(Store(tmp_path)).rows()} == {*pool.written[1:]}


def test_a_completed_demonstration_leads_back_to_the_rollout_of_its_solution(
    tmp_path: Path,
) -> None:
    pool = WritingPool()
    judged = [replace(one, outcome="correct") for one in complete(pool, tmp_path)]
    assert [Draft.from_row(one.to_row()).solution_rollout_id for one in judged] == pool.written
    rows = [one.to_row() for one in demonstrations_of(judged)]
    Store(tmp_path).publish_table("d0", "1", rows)
    (user,) = RolloutBank(Store(tmp_path)).users(pool.written[:1])
    assert user.name == "d0"
    del rows[0]["solution_rollout_id"]
    assert Demonstration.from_row(rows[0]).solution_rollout_id == ""
