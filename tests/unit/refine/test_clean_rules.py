"""Cleaning, selecting, pairing, mixing and their accounting, on small hand-made sets."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from still_core.errors import ConfigError, DataError
from still_core.identity import digest
from still_core.recipes.loading import load_recipe
from still_core.refine.clean import clean, judge
from still_core.refine.funnel import Funnel, merge
from still_core.refine.lineage import dropped_from_rows, dropped_rows, trace
from still_core.refine.mix import mix, plan_quotas
from still_core.refine.pairs import Pair, make_pairs
from still_core.refine.recipe import (
    CleanRecipe,
    Direction,
    MixRecipe,
    PairRecipe,
    SelectRecipe,
)
from still_core.refine.select import select
from still_core.responses.response import Demonstration, Origin

RECIPE = CleanRecipe()
TEXT = """
first we look at the sum then consider what happens when each term grows because every factor
divides another number so perhaps there is a pattern hidden between these values let me check
whether this holds for small cases before going further and compare with known results
"""
WORDS = TEXT.split()


def prose(seed: int, words: int = 120) -> str:
    rng = random.Random(seed)
    text = [
        rng.choice(WORDS) + (f" {rng.randint(2, 99)}" if i % 7 == 0 else "") for i in range(words)
    ]
    return "\n\n".join(" ".join(text[i : i + 20]) + "." for i in range(0, words, 20))


def row(seed: int = 0, **fields: object) -> Demonstration:
    statement = f"What is the value of item {seed} in the table of results?"
    base = Demonstration(
        id=f"d{seed:04d}",
        problem_id=f"p{seed}",
        problem_digest=digest([statement, seed]),
        statement=statement,
        gold=str(seed),
        kind="math",
        domain="math",
        bucket="hard_math",
        level=None,
        thought=prose(seed),
        solution=f"The value is \\boxed{{{seed}}}.",
        origin=Origin.DISTILLED,
        author="teacher",
        round=0,
        source_row=f"file.jsonl:{seed}",
        verdict="correct",
        verifier_version="v1",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def reason(one: Demonstration, recipe: CleanRecipe = RECIPE) -> str:
    found = judge(one, recipe)
    return found.reason if found else ""


def test_a_clean_row_passes_every_rule() -> None:
    assert reason(row()) == ""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"verdict": "wrong"}, "wrong"),
        ({"verdict": "timeout"}, "timeout"),
        ({"verdict": ""}, "unverified"),
        ({"thought": " "}, "empty_thought"),
        ({"solution": ""}, "empty_solution"),
        ({"thought": prose(1) + "<|end_of_thought|>"}, "format_token"),
        ({"thought": prose(1) + "</think>"}, "foreign_markup"),
        ({"solution": "so the value of the sum is then"}, "truncated"),
        ({"solution": "so \\[ x = \\frac{1"}, "truncated"),
        ({"thought": "short."}, "short_thought"),
        ({"thought": prose(1) + " wait, let me check again." * 12}, "loop"),
        ({"thought": (prose(1) + "\n\n" + prose(2) + "\n\n") * 2}, "repeated_ngrams"),
        ({"thought": prose(1) + "\x00"}, "broken_characters"),
        ({"thought": prose(1) + "\ufffd"}, "broken_characters"),
        (
            {
                "thought": prose(1)
                + " "
                + " ".join(f"{a}qz{b}vxk{c}wj" for a in "bcdf" for b in "ghjk" for c in "lmnp")
            },
            "unlikely_words",
        ),
        ({"thought": prose(1) + " \u56e0\u6b64 the sum is 4"}, "mixed_han"),
        (
            {"thought": prose(1) + " \u043f\u043e\u044d\u0442\u043e\u043c\u0443 it is 4"},
            "mixed_cyrillic",
        ),
    ],
)
def test_each_fault_is_dropped_under_its_reason(fields: dict[str, object], expected: str) -> None:
    assert reason(row(**fields)) == expected


@pytest.mark.parametrize(
    "thought",
    [
        prose(1) + " Let \u03b1, \u03b2 be angles, \u03b1 + \u03b2; then \u2211 x\u00b2 \u2260 0.",
        prose(1)
        + "\n\n\\[ \\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}^{-1} = \\frac{1}{ad-bc} \\]"
        * 2,
        prose(1) + "\n\n```python\nfor k in range(10):\n    print(k ** 2, xqzt_vkw)\n```",
        prose(1) + " na\u00efve M\u00f6bius and Poincar\u00e9 caf\u00e9.",
    ],
)
def test_the_language_of_mathematics_is_not_gibberish(thought: str) -> None:
    assert reason(row(thought=thought)) == ""


def test_a_script_that_the_problem_has_is_not_mixed_in() -> None:
    asked = "\u6c42\u51fd\u6570 f(x) = x^2 \u7684\u6700\u5c0f\u503c, in words."
    assert reason(row(statement=asked, thought=prose(1) + " \u6700\u5c0f\u503c")) == ""


def test_every_row_is_kept_once_or_dropped_once_and_the_funnel_adds_up() -> None:
    rows = [row(i) for i in range(20)] + [row(20 + i, verdict="wrong") for i in range(5)]
    rows += [row(40, thought=prose(0), solution=row(0).solution)]
    refined = clean(rows, RECIPE)
    assert len(refined.kept) + len(refined.dropped) == len(rows) == refined.funnel.num_in
    assert refined.funnel.num_dropped == len(refined.dropped) == 6
    assert {one.reason for one in refined.dropped} == {"wrong", "exact_response"}
    assert Funnel.from_rows(refined.funnel.to_rows()).steps == refined.funnel.steps


def test_the_result_does_not_depend_on_the_order_of_rows() -> None:
    rows = [row(i) for i in range(12)]
    rows += [replace(row(i), id=f"x{i}", thought=rows[i].thought + " Indeed.") for i in range(6)]
    expected = {one.id for one in clean(rows, RECIPE).kept}
    assert len(expected) == 12
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert {one.id for one in clean(rows, RECIPE).kept} == expected


def test_two_rows_with_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="share an id"):
        clean([row(1), row(1)], RECIPE)


def test_a_rule_can_be_left_out_and_an_unknown_one_is_refused() -> None:
    assert clean([row(verdict="wrong")], CleanRecipe(rules=("short",))).kept
    with pytest.raises((ConfigError, ValueError), match="unknown rule"):
        CleanRecipe(rules=("spelling",))


def test_a_repeated_problem_counts_once_but_its_several_responses_stay() -> None:
    text = (
        "Find the number of ordered pairs (a, b) of positive integers with a + b = 2024, "
        "where two pairs count as different whenever they differ in their first or second number."
    )
    same = digest(["one"])
    rows = [
        row(1, statement=text, gold="2023", problem_digest=same),
        row(2, statement=text, gold="2023", problem_digest=same),
        row(3, statement=text + " ", gold="2023", problem_digest=digest(["two"])),
        row(4, statement=text.replace("2024", "2025"), gold="2023", problem_digest=digest(["3"])),
    ]
    refined = clean(rows, RECIPE)
    assert [one.id for one in refined.kept] == ["d0001", "d0002", "d0004"]
    assert [(d.reason, d.detail) for d in refined.dropped] == [("near_problem", "p1")]


def test_lineage_leads_from_any_row_to_its_source_and_rule() -> None:
    rows = [row(1), row(2, verdict="wrong"), row(3, thought="tiny")]
    refined = clean(rows, RECIPE)
    kept = trace("d0001", refined, RECIPE)
    assert (kept.source_row, kept.author, kept.verifier_version) == (
        "file.jsonl:1",
        "teacher",
        "v1",
    )
    assert [rule.rule for rule in kept.passed] == list(RECIPE.rules)
    lost = trace("d0003", refined, RECIPE)
    assert (lost.dropped_by, lost.reason, lost.threshold) == ("short", "short_thought", 200.0)
    assert [rule.rule for rule in lost.passed] == ["verdict", "markup", "truncated"]
    assert dropped_from_rows(dropped_rows(refined.dropped)) == refined.dropped
    with pytest.raises(DataError, match="no such"):
        trace("nobody", refined, RECIPE)


def test_a_funnel_that_loses_rows_is_refused() -> None:
    funnel = Funnel().step("read", 9, {"bad": 1})
    with pytest.raises(DataError, match="loses or invents"):
        funnel.step("next", 7, {"short": 1})
    rows = funnel.to_rows()
    rows[0]["num_in"] = 11
    with pytest.raises(DataError, match="add up"):
        Funnel.from_rows(rows)


def test_shards_merge_into_one_funnel() -> None:
    shards = [Funnel().step("a", 2, {"x": 1}), Funnel().step("a", 5, {"x": 2, "y": 1})]
    step = merge(shards).steps[0]
    assert (step.num_in, step.num_kept, step.dropped) == (11, 7, {"x": 3, "y": 1})


def test_the_longest_half_is_kept_and_either_end_can_be_asked_for() -> None:
    rows = [row(i, thought="x" * (10 * i)) for i in range(1, 5)]
    longest = select(rows, SelectRecipe(length_share=0.5))
    assert [one.id for one in longest.kept] == ["d0003", "d0004"]
    lowest = SelectRecipe(length_share=0.5, length_direction=Direction.LOWEST)
    assert [one.id for one in select(rows, lowest).kept] == ["d0001", "d0002"]


def test_higher_perplexity_is_kept_and_a_missing_one_is_refused() -> None:
    rows = [row(i, perplexity=float(i)) for i in range(4)]
    assert [r.id for r in select(rows, SelectRecipe(perplexity_share=0.25)).kept] == ["d0003"]
    with pytest.raises(DataError, match="no perplexity"):
        select([row(1)], SelectRecipe(perplexity_share=0.5))


def test_pairs_oppose_the_hardest_correct_to_the_easiest_wrong_response() -> None:
    same = digest(["q"])
    rows = [
        row(1, problem_digest=same, perplexity=2.0),
        row(2, problem_digest=same, perplexity=5.0),
        row(3, problem_digest=same, perplexity=4.0, verdict="wrong"),
        row(4, problem_digest=same, perplexity=3.0, verdict="wrong"),
        row(5, problem_digest=same, perplexity=1.0, verdict="timeout"),
        row(6, perplexity=1.0),
    ]
    paired = make_pairs(rows, PairRecipe())
    assert [pair.id for pair in paired.pairs] == ["d0002>d0004"]
    assert paired.funnel.num_in == 6
    assert paired.funnel.steps[0].dropped == {"not_judged": 1, "only_correct": 1, "surplus": 2}
    assert Pair.from_row(paired.pairs[0].to_row()) == paired.pairs[0]


def test_a_mixture_stands_in_the_recipes_proportions() -> None:
    rows = [row(i, bucket="hard_math") for i in range(30)]
    rows += [row(100 + i, bucket="normal_math") for i in range(30)]
    rows += [row(200 + i, bucket="other") for i in range(10)]
    weights = {"hard_math": 3.0, "normal_math": 2.0, "other": 1.0}
    mixture = mix(rows, MixRecipe(weights=weights, fill=False))
    assert {s.name: s.num_taken for s in mixture.shares} == {
        "hard_math": 30,
        "normal_math": 20,
        "other": 10,
    }
    without = mix(rows, MixRecipe(weights={"normal_math": 1.0, "other": 1.0}))
    assert {one.bucket for one in without.kept} == {"normal_math", "other"}
    assert len(without.kept) + len(without.dropped) == len(rows)


def test_a_mixture_depends_on_the_seed_and_not_on_the_order() -> None:
    rows = [row(i) for i in range(40)]
    recipe = MixRecipe(weights={"hard_math": 1.0}, target_size=10, seed=3)
    first = [one.id for one in mix(rows, recipe).kept]
    assert [one.id for one in mix(rows[::-1], recipe).kept] == first
    other = recipe.model_copy(update={"seed": 4})
    assert [one.id for one in mix(rows, other).kept] != first
    assert len(first) == 10


def test_a_short_bucket_is_filled_from_the_others_or_shrinks_the_mixture() -> None:
    available = {"hard_math": 2, "normal_math": 50, "other": 50}
    filled = plan_quotas(available, MixRecipe(target_size=30))
    assert filled == {"hard_math": 2, "normal_math": 14, "other": 14}
    shrunk = plan_quotas(available, MixRecipe(target_size=30, fill=False))
    assert shrunk == {"hard_math": 2, "normal_math": 10, "other": 10}
    assert plan_quotas(available, MixRecipe()) == available
    exact = plan_quotas(available, MixRecipe(fill=False))
    assert exact == {"hard_math": 2, "normal_math": 2, "other": 2}


def test_a_row_without_a_weight_is_in_no_mixture_and_all_others_are() -> None:
    rows = [row(0, bucket="other"), *(row(i) for i in range(1, 4))]
    mixture = mix(rows, MixRecipe(weights={"hard_math": 1.0, "normal_math": 9.0, "other": 0.0}))
    assert {one.bucket for one in mixture.kept} == {"hard_math"}
    assert [(one.row.id, one.reason) for one in mixture.dropped] == [("d0000", "no_weight")]


def test_short_responses_of_different_problems_may_agree_by_chance() -> None:
    recipe = CleanRecipe(rules=("duplicate_response",))
    short = {"thought": "1f>i\n\n2i>e", "solution": "\\boxed{A}"}
    apart = [row(1, **short), row(2, **short)]
    assert len(clean(apart, recipe).kept) == 2
    same = [row(1, **short), row(2, problem_digest=row(1).problem_digest, **short)]
    assert [one.id for one in clean(same, recipe).kept] == ["d0001"]
    long = [row(1), row(2, thought=row(1).thought, solution=row(1).solution)]
    assert [one.id for one in clean(long, recipe).kept] == ["d0001"]


def test_english_inside_a_chinese_thought_is_mixed_and_formulas_are_not() -> None:
    asked = "\u6c42\u51fd\u6570 $f(x) = \\mathrm{max}(x, 1)$ \u7684\u6700\u5c0f\u503c\u3002"
    thought = "\u9996\u5148\uff0c\u6211\u4eec\u6c42\u51fd\u6570\u7684\u6700\u5c0f\u503c\u3002" * 12
    formula = "\\[ \\mathrm{maximum} = \\text{largest value} \\] sin(x)"
    fields = {"statement": asked, "solution": "\u7b54\u6848\uff1a \\boxed{1}"}
    recipe = CleanRecipe(rules=("scripts",), min_thought_characters=1)
    assert reason(row(thought=thought + formula, **fields), recipe) == ""
    planted = thought + " Wait, let me double check this step. " + thought
    assert reason(row(thought=planted, **fields), recipe) == "mixed_latin"
    wholly = "First we look at the function, and then we compare its values at both ends."
    assert reason(row(thought=wholly, **fields), recipe) == ""


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("without-hard-problems", {"normal_math": 1.0, "other": 1.0}),
        ("without-other-domains", {"hard_math": 1.0, "normal_math": 1.0}),
        ("mixed", {"hard_math": 1.0, "normal_math": 1.0, "other": 1.0}),
    ],
)
def test_the_mixtures_of_table_3_are_recipes(name: str, weights: dict[str, float]) -> None:
    folder = Path(__file__).resolve().parents[3] / "deployments" / "recipes"
    recipe = load_recipe(str(folder / f"table-3-{name}.yaml"))
    assert {bucket: weight for bucket, weight in recipe.mix.weights.items() if weight} == weights
    paper = load_recipe("still-2-32b")
    mix = recipe.mix.model_copy(update={"weights": paper.mix.weights})
    assert set(recipe.pool.buckets) == set(paper.pool.buckets) & set(weights)
    same = {"name": paper.name, "mix": mix, "pool": paper.pool}
    assert recipe.model_copy(update=same) == paper


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("so we add the two numbers again and " * 4, "loop"),
        ("no wait " * 25, "loop"),
        (
            "XQJZK VWPQX JJWQB VBXKQ ZZQFK WPXQJ ZVXKQ WBVZJ QXJWZ PVKWQ XJKZV QWPXZ",
            "unlikely_words",
        ),
        ("x8f3k2 9sk2jq 7hd8s0 q1w2e3 z9x8c7 m4n5b6 k2j3h4 p0o9i8", "unlikely_characters"),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08ff", "encoded_data"),
        ("hahahaha" * 10, "unlikely_words"),
        ("".join(chr(0x1F300 + 37 * i % 500) for i in range(30)), "unlikely_characters"),
        ("".join(chr(0xC0 + 7 * i % 120) for i in range(30)), "unlikely_characters"),
    ],
)
def test_short_loops_and_odd_runs_are_found(planted: str, reason: str) -> None:
    sound = row(1)
    assert judge(sound, RECIPE) is None
    half = sound.thought.index(" ", len(sound.thought) // 2)
    thought = f"{sound.thought[:half]} {planted}{sound.thought[half:]}"
    found = judge(replace(sound, thought=thought), RECIPE)
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize(
    "sound",
    [
        r"\frac{1}{2} \times \frac{1}{2} \times \frac{1}{2} \times \frac{1}{2} = \frac{1}{16}",
        r"\sqrt{2} + \sqrt{2} + \sqrt{2} + \sqrt{2} + \sqrt{2} = 5\sqrt{2}",
        "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 = 14",
        "x y x y x y x y x y x y x y x y x y x y x y x y",
        "the codon sequence is ATGCC GGTAC TTACG CATGA CCGTA AGCTT GATTA CAGGA TCCAT GACGT",
        "compare FTIR, NMR, HPLC, GCMS, XPS, XRD, SEM, TEM, AFM, BET, TGA, DSC, CVD, PVD, ALD",
        "----------------------------------------------------------------------------",
        "the years 1990 1991 1992 1993 1994 1995 1996 1997 1998 1999 2000 2001 2002 2003",
    ],
)
def test_formulas_sequences_and_acronyms_are_neither(sound: str) -> None:
    base = row(1)
    half = base.thought.index(" ", len(base.thought) // 2)
    thought = f"{base.thought[:half]} {sound} {base.thought[half:]}"
    assert judge(replace(base, thought=thought), RECIPE) is None
