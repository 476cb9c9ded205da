"""What `still plan` says a run costs, and on which assumptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.planning import cost_lines
from still_core.recipes.loading import load_recipe, load_resources


def costs(name: str, *changes: str) -> str:
    return "\n".join(cost_lines(load_recipe(name, changes), load_resources(name)))


def test_the_cost_of_a_run_names_its_assumptions() -> None:
    text = costs(
        "still-2-32b",
        "pool.problems_per_round=1000",
        "explore.max_attempts=20",
        "explore.sampling.max_tokens=20000",
    )
    assert "assumes 3,900 demonstrations (mix.target_size), 5,000 tokens each on average" in text
    assert "(max_length / 4), 5 epochs" in text
    # 1,000 problems x 20 attempts x 20,000 / 4 tokens, at 1,000 tokens/s.
    assert "at most 100.0 million tokens, 28 GPU-hours" in text
    assert "assumes 5,000 tokens per response on average (max_tokens / 4)" in text
    assert "1,000 tokens/s per GPU" in text
    assert "not in these hours: teachers, scoring, evaluation" in text


def test_without_a_known_number_of_rows_the_plan_says_why_it_has_no_hours() -> None:
    text = costs("still-2-32b", "mix.target_size=0", "rounds=0")
    assert "no GPU-hours: mix.target_size 0 leaves the number of rows open" in text
    assert "one exploration" not in text


def test_the_pairs_of_dpo_are_counted_from_the_recipe() -> None:
    text = costs(
        "still-2-32b",
        "self_improve.method=dpo",
        "pool.problems_per_round=1000",
        "self_improve.pairs.max_pairs_per_problem=2",
    )
    assert "assumes 2,000 pairs" in text


def test_rating_the_pool_before_the_rounds_costs_what_its_attempts_do() -> None:
    # 1,000 problems x 8 attempts x 30,720 / 4 tokens, at 1,000 tokens/s.
    line = "rating the pool, 1,000 problems x 8 attempts: 61.4 million tokens, 17 GPU-hours"
    assert line in costs("still-2-32b", "pool.difficulty.attempts=8")
    assert "122.9 million tokens" in costs("still-2-32b", "pool.difficulty.attempts=16")
    assert "rating" not in costs("still-2-32b")
    assert "rating" not in costs("still-2-32b", "pool.difficulty.attempts=8", "rounds=0")


def test_a_run_that_completes_no_solutions_trains_no_solution_writer() -> None:
    assert "4 x SFT of a round in the run, and one of the solution writer" in costs("still-2-32b")
    assert "solution writer" not in costs("still-2-32b", "distil.complete_solutions=false")


def test_a_run_without_gpus_has_no_gpu_hours_of_exploration() -> None:
    text = costs("miniature")
    assert "million tokens\n" in text
    assert "tokens/s per GPU" not in text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{not json", "config.json can not be read: Expecting property name"),
        ("null", "config.json is no model's: expected a JSON object"),
        ("[1, 2]", "config.json is no model's: got [1, 2], expected a JSON object"),
        ("{}", "num_attention_heads is no size: got 'nothing', expected a whole number"),
        ('{"num_attention_heads": 0}', "num_attention_heads is no size: got 0, expected"),
        ('{"num_attention_heads": null}', "num_attention_heads is no size: got 'null', expected"),
    ],
)
def test_a_model_config_that_can_not_be_used_costs_one_line_and_no_traceback(
    config: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config)
    lines = costs("miniature", f"backbone.model={tmp_path}").splitlines()
    (line,) = (one for one in lines if one.startswith("no memory plan: "))
    assert said in line
