"""Pairs of explored responses: what is paired, what is left out, which recipes are refused."""

from __future__ import annotations

import pytest

from still_core.distil.preferences import build_preferences, publish_preferences, read_pairs
from still_core.errors import ConfigError, DataError
from still_core.recipes.loading import load_recipe
from still_core.refine.recipe import CleanRecipe, PairRecipe
from still_core.responses.response import Demonstration, Origin
from still_core.store import Store

RULES = CleanRecipe(min_thought_characters=6)


def response(
    name: str, problem: str, verdict: str, perplexity: float, thought: str = ""
) -> Demonstration:
    return Demonstration(
        id=name,
        problem_id=problem,
        problem_digest=f"digest-{problem}",
        statement=f"What is the answer to question {problem}?",
        gold="7",
        kind="math",
        domain="arithmetic",
        bucket="normal_math",
        level=1.0,
        thought=thought or f"We add one to six for {name}, and one more time for {problem}.",
        solution=f"It is {name} \\boxed{{7}}",
        origin=Origin.EXPLORED,
        author="policy",
        round=1,
        source_row=name,
        verdict=verdict,
        verifier_version="v",
        perplexity=perplexity,
    )


def siblings() -> list[Demonstration]:
    return [
        response("a1", "a", "correct", 2.0),
        response("a2", "a", "wrong", 3.0),
        response("a3", "a", "wrong", 1.5),
        response("b1", "b", "correct", 2.0, thought="short"),
        response("b2", "b", "wrong", 1.2),
    ]


def test_the_correct_response_meets_the_wrong_one_that_the_model_finds_easiest() -> None:
    found = build_preferences(siblings(), RULES, PairRecipe())
    assert [pair.id for pair in found.pairs] == ["a1>a3"]


def test_rules_hold_for_what_is_to_be_learnt_and_the_account_is_exact() -> None:
    found = build_preferences(siblings(), RULES, PairRecipe())
    assert [one.row.id for one in found.dropped] == ["b1"]
    assert found.funnel.num_in == 5 == found.funnel.num_kept + found.funnel.num_dropped
    lost = {reason for step in found.funnel.steps for reason in step.dropped}
    assert {"surplus", "only_wrong"} <= lost


def test_published_pairs_have_what_the_dpo_job_reads(tmp_path: object) -> None:
    store = Store(str(tmp_path))
    found = build_preferences(siblings(), RULES, PairRecipe())
    handle = publish_preferences(store, "pairs", "1", found, clean_recipe=RULES)
    assert read_pairs(store, handle) == found.pairs
    (row,) = store.read_rows(handle)
    sides = {"chosen_thought", "chosen_solution", "rejected_thought", "rejected_solution"}
    assert {"id", "statement"} | sides <= set(row)


def test_no_pair_at_all_is_said_with_its_reasons() -> None:
    with pytest.raises(DataError, match=r"no pair .*only_wrong.*raise explore.max_attempts"):
        build_preferences(siblings()[3:], RULES, PairRecipe())


@pytest.mark.parametrize("fault", ["start_from=previous", "rounds=0", "explore.max_attempts=1"])
def test_what_does_not_go_with_dpo_is_refused_in_one_line(fault: str) -> None:
    load_recipe("miniature", [fault])
    with pytest.raises(ConfigError, match=f"method=dpo does not go with {fault};") as refused:
        load_recipe("miniature", ["self_improve.method=dpo", fault])
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"self_improve.method: Input should be 'sft' or 'dpo'"):
        load_recipe("miniature", ["self_improve.method=ppo"])
