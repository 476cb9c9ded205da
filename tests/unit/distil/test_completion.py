"""Solution completion: what the bank has is not written again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from still_core.distil.completion import complete_drafts
from still_core.distil.drafts import Draft, DraftState
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.raw import RawResponse
from still_core.rollout.bank import RolloutBank
from still_core.rollout.rollout import FinishReason, Rollout, RolloutRequest, Sampling
from still_core.store import Store


class WritingPool:
    """Writes one solution per request; dies after `alive_for`."""

    capacity, engine_build, policy_digest, policy_version = 8, "scripted 1", "writer", 0

    def __init__(self, alive_for: int = 1000) -> None:
        self.alive_for = alive_for
        self.written: list[str] = []
        self.tokenizer = SimpleNamespace(
            chat_template="plain",
            eos_token="<end>",
            apply_chat_template=lambda turns, **_: turns[-1]["content"],
        )

    def generate(self, requests: Iterable[RolloutRequest]) -> Iterator[Rollout]:
        for request in requests:
            if len(self.written) == self.alive_for:
                raise KeyboardInterrupt
            self.written.append(request.id)
            yield Rollout(
                id=request.id,
                problem_id=request.problem_id,
                problem_digest=request.problem_digest,
                policy_digest=request.policy_digest,
                policy_version=request.policy_version,
                prompt_digest=request.prompt_digest,
                sampling_digest="s",
                engine_build=request.engine_build,
                sample_index=0,
                seed=0,
                text=f"The sum of {request.problem_id} is \\boxed{{4}}.\n<|end_of_solution|>",
                token_ids=(1, 2),
                logprobs=(-0.1, -0.2),
                finish_reason=FinishReason.STOP,
            )


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


def complete(pool: Any, root: Path) -> list[Draft]:
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=16)
    drafts = [thought_alone(number) for number in range(7)]
    bank = RolloutBank(Store(root))
    return complete_drafts(drafts, pool, bank, prompt_name="bare", sampling=sampling)


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
