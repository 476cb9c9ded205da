"""Scripted policies that know no mathematics earn nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from still_core.verify import Answer, Conventions, Outcome, VerifierPool

POLICIES: dict[str, Callable[[str], str]] = {
    "nothing": lambda problem: "",
    "an empty box": lambda problem: r"\boxed{}",
    "the problem": lambda problem: problem,
    "the problem, boxed": lambda problem: rf"\boxed{{{problem}}}",
    "every number": lambda problem: r"\boxed{" + ", ".join(map(str, range(200))) + "}",
    "every number by or": lambda problem: r"\boxed{" + " or ".join(map(str, range(60))) + "}",
    "many boxes": lambda problem: " and ".join(rf"\boxed{{{n}}}" for n in range(60)),
    "all reals": lambda problem: r"\boxed{x \in \mathbb{R}}",
    "a name": lambda problem: r"\boxed{x}",
    "a range": lambda problem: r"\boxed{[0, 10^9]}",
    "a claim": lambda problem: r"\boxed{\text{the correct answer}}",
    "a chain": lambda problem: r"\boxed{1 = 2 = 3}",
    "a huge box": lambda problem: r"\boxed{" + "9" * 100_000 + "}",
    "a loop": lambda problem: "Wait, let me check. " * 5_000,
    "a colon": lambda problem: ":",
    "the box in the thought": lambda problem: r"<think>\boxed{42}</think> So that is it.",
}


@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_policy_without_mathematics_earns_at_most_chance(policy: str, shared_data: Path) -> None:
    lines = (shared_data / "gsm8k_train.jsonl").read_text().splitlines()[:400]
    rows = [json.loads(line) for line in lines]
    answers = [
        Answer(
            id="x",
            gold=row["answer"].split("####")[1].strip(),
            pred=POLICIES[policy](row["question"]),
        )
        for row in rows
    ]
    with VerifierPool(conventions=Conventions(unboxed="never")) as pool:
        verdicts = pool.verify_many(answers)
    # "a chain" ends in 3, which is gold for a handful of problems.
    rewarded = sum(verdict.outcome is Outcome.CORRECT for verdict in verdicts)
    assert rewarded <= (0.05 * len(rows) if policy == "a chain" else 0)
    assert not any(verdict.outcome is Outcome.ERROR for verdict in verdicts)
