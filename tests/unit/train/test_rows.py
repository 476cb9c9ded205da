"""Rows of tokens: what the loss sees, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from still_core.errors import DataError
from still_core.train.rows import tokenise, tokenise_pairs

THOUGHT = "<|begin_of_thought|>\n1 and 2 is 3\n<|end_of_thought|>"
SOLUTION = "\n\n<|begin_of_solution|>\n3\n<|end_of_solution|><|im_end|>"


@pytest.fixture
def tokenizer(tiny_model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_dir)


def text_row(completion: str = THOUGHT + SOLUTION, prompt: str = "1+2?\n") -> dict[str, str]:
    return {"id": "a", "prompt_text": prompt, "completion_text": completion}


def test_prompt_and_response_are_tokenised_apart_and_nothing_is_added(tokenizer: Any) -> None:
    (row,) = tokenise([text_row()], tokenizer, prompt="bare", max_length=100).rows
    assert tokenizer.decode(row.prompt_ids) == "1+2?\n"
    assert tokenizer.decode(row.response_ids) == THOUGHT + SOLUTION
    assert row.response_ids[-1] == tokenizer.eos_token_id
    assert row.num_tokens() == len(row.prompt_ids) + len(row.response_ids)


def test_a_demonstration_is_rendered_through_its_prompt(tokenizer: Any) -> None:
    demonstration = {
        "id": "d",
        "problem_id": "p",
        "problem_digest": "x",
        "statement": "1+2?",
        "gold": "3",
        "kind": "math",
        "domain": "arithmetic",
        "bucket": "normal_math",
        "level": None,
        "thought": "1 and 2 is 3",
        "solution": "3",
        "origin": "distilled",
        "author": "t",
        "round": 0,
        "source_row": "f:1",
        "verdict": "correct",
        "verifier_version": "v",
    }
    (row,) = tokenise([demonstration], tokenizer, prompt="bare", max_length=200).rows
    assert tokenizer.decode(row.prompt_ids) == (
        "<|im_start|>user\n1+2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(row.response_ids) == THOUGHT + SOLUTION


def test_a_row_beyond_the_limit_is_dropped_and_counted_never_cut(tokenizer: Any) -> None:
    long = text_row("9" * 200 + "<|im_end|>")
    rows = tokenise([text_row(), long, text_row()], tokenizer, prompt="bare", max_length=150)
    assert len(rows.rows) == 2
    assert rows.dropped == {"too_long": 1}


def test_a_response_that_the_tokenizer_can_not_give_back_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"row a.*at character 2"):
        tokenise([text_row("12\u4f603<|im_end|>")], tokenizer, prompt="bare", max_length=99)


def test_a_response_without_the_end_token_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="end-of-sequence"):
        tokenise([text_row("12")], tokenizer, prompt="bare", max_length=99)


def pair(chosen: str, rejected: str, name: str = "p") -> dict[str, Any]:
    return {"id": name, "prompt_text": "1+2?\n", "chosen_text": chosen, "rejected_text": rejected}


def test_the_thought_target_ends_with_the_closing_mark_in_both_responses(tokenizer: Any) -> None:
    table = [pair(THOUGHT + SOLUTION, THOUGHT.replace("3", "44") + SOLUTION)]
    (row,) = tokenise_pairs(table, tokenizer, prompt="bare", max_length=99, thought_only=True).rows
    for ids, mask, text in (
        (row.chosen_ids, row.chosen_mask, THOUGHT),
        (row.rejected_ids, row.rejected_mask, THOUGHT.replace("3", "44")),
    ):
        target = [token for token, seen in zip(ids, mask, strict=True) if seen]
        assert tokenizer.decode(target) == text
    (whole,) = tokenise_pairs(
        table, tokenizer, prompt="bare", max_length=99, thought_only=False
    ).rows
    assert set(whole.chosen_mask) == {1}


def test_a_truncated_thought_is_target_as_a_whole(tokenizer: Any) -> None:
    cut = "<|begin_of_thought|>\n1 and 2 is<|im_end|>"
    (row,) = tokenise_pairs(
        [pair(THOUGHT + SOLUTION, cut)], tokenizer, prompt="bare", max_length=99, thought_only=True
    ).rows
    assert set(row.rejected_mask) == {1}


def test_equal_and_over_long_pairs_are_dropped_and_counted(tokenizer: Any) -> None:
    same = pair(THOUGHT + SOLUTION, THOUGHT + SOLUTION)
    long = pair(THOUGHT + SOLUTION, "9" * 100 + "<|im_end|>", name="q")
    rows = tokenise_pairs([same, long], tokenizer, prompt="bare", max_length=90, thought_only=False)
    assert rows.rows == []
    assert rows.dropped == {"equal_responses": 1, "too_long": 1}


NOT_A_NUMBER = float("nan")  # a null, as pandas reads it
SPOKEN = {"statement": "1+2?", "thought": "1 and 2 is 3", "solution": "3"}
SPOKEN_PAIR = {
    "statement": "1+2?",
    "chosen_thought": "1 and 2 is 3",
    "chosen_solution": "3",
    "rejected_thought": "1 and 2 is 4",
    "rejected_solution": "4",
}


@pytest.mark.parametrize("good", [text_row(), {"id": "a", **SPOKEN}], ids=["rendered", "spoken"])
@pytest.mark.parametrize("bad", [None, NOT_A_NUMBER, 3])
def test_a_row_without_one_of_its_texts_is_refused_by_name(
    tokenizer: Any, good: dict[str, Any], bad: object
) -> None:
    tokenise([good], tokenizer, prompt="bare", max_length=999)
    for column in set(good) - {"id"}:
        table = [good, {**good, "id": "b", column: bad}]
        with pytest.raises(DataError, match=f"row b has no text in {column}: .*expected text"):
            tokenise(table, tokenizer, prompt="bare", max_length=999)


@pytest.mark.parametrize(
    "good",
    [pair(THOUGHT + SOLUTION, SOLUTION), {"id": "p", **SPOKEN_PAIR}],
    ids=["rendered", "spoken"],
)
@pytest.mark.parametrize("bad", [None, NOT_A_NUMBER, 3])
def test_a_pair_without_one_of_its_texts_is_refused_by_name(
    tokenizer: Any, good: dict[str, Any], bad: object
) -> None:
    fields: dict[str, Any] = {"prompt": "bare", "max_length": 999, "thought_only": True}
    tokenise_pairs([good], tokenizer, **fields)
    for column in set(good) - {"id"}:
        table = [good, {**good, "id": "b", column: bad}]
        with pytest.raises(DataError, match=f"row b has no text in {column}: .*expected text"):
            tokenise_pairs(table, tokenizer, **fields)


def test_a_table_without_a_column_is_refused_with_those_that_it_has(tokenizer: Any) -> None:
    for table, lacking in (
        ([{"id": "b", "prompt_text": "1+2?"}], "completion_text"),
        ([{"id": "b", "statement": "1+2?"}], "thought and no solution"),
    ):
        with pytest.raises(DataError, match=f"row b has no {lacking}: got 'columns id, "):
            tokenise(table, tokenizer, prompt="bare", max_length=99)
    with pytest.raises(DataError, match=r"row 0 has no statement and no .*rejected_solution: got"):
        tokenise_pairs(
            [{"problem": "1+2?"}], tokenizer, prompt="bare", max_length=99, thought_only=True
        )


def test_two_pairs_with_one_id_are_refused(tokenizer: Any) -> None:
    table = [pair(THOUGHT + SOLUTION, SOLUTION, name=name) for name in ("p", "q", "p")]
    with pytest.raises(DataError, match=r"two pairs have the id p: got 'rows 0 and 2'"):
        tokenise_pairs(table, tokenizer, prompt="bare", max_length=999, thought_only=True)
    without = [{**row, "id": None} for row in table]
    rows = tokenise_pairs(without, tokenizer, prompt="bare", max_length=999, thought_only=True)
    assert [row.id for row in rows.rows] == ["0", "1", "2"]
