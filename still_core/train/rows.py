"""Demonstrations as token rows: prompt tokens, then response tokens that the loss sees.

demonstration -> (prompt text, response text) -> tokenised apart -> TokenRow | dropped, with reason

The prompt and the response are tokenised apart and joined, as at inference, where the model writes
its tokens after the tokens of the rendered prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from still_core.errors import DataError, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRow:
    """One training row."""

    id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """Ends with the end-of-sequence token."""

    def num_tokens(self) -> int:
        """Prompt and response together."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """One pair of responses to the same prompt, with the tokens that the preference loss sees."""

    id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    chosen_mask: tuple[int, ...]
    """[len(chosen_ids)] 1 on target tokens, 0 elsewhere."""
    rejected_ids: tuple[int, ...]
    rejected_mask: tuple[int, ...]
    """[len(rejected_ids)]"""

    def num_tokens(self) -> int:
        """Of the longer side, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRows:
    """All pairs that can be trained on, and how many could not."""

    rows: list[PairRow]
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRows:
    """All rows that can be trained on, and how many could not."""

    rows: list[TokenRow]
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of rows; rows in = len(rows) + sum(dropped)."""


_RENDERED = ("prompt_text", "completion_text")
_DEMONSTRATION = ("statement", "thought", "solution")
_RENDERED_PAIR = ("prompt_text", "chosen_text", "rejected_text")
_PAIR = (
    "statement",
    "chosen_thought",
    "chosen_solution",
    "rejected_thought",
    "rejected_solution",
)


def check_table(table: Iterable[Mapping[str, Any]], *, pairs: bool) -> None:
    """Hold every row to what `tokenise`, or `tokenise_pairs`, reads of it.

    Args:
        table: of demonstrations or of pairs.
        pairs: which of them.

    Raises:
        DataError: a row lacks a column or has no text in one, or two pairs have the same id, by
            which the reference's log-probs are known.
    """
    first: dict[str, int] = {}
    for number, record in enumerate(table):
        if pairs:
            _check_texts(record, number, _RENDERED_PAIR if "prompt_text" in record else _PAIR)
        else:
            _check_texts(record, number, _RENDERED if "prompt_text" in record else _DEMONSTRATION)
        name = _name(record, number)
        if pairs and first.setdefault(name, number) != number:
            raise DataError(
                explain(
                    f"two pairs have the id {name}",
                    got=f"rows {first[name]} and {number}",
                    expected="another id for each pair",
                    remedy="publish the table with ids of its own",
                )
            )


def _check_texts(record: Mapping[str, Any], number: int, columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in record]
    if lacking:
        raise DataError(
            explain(
                f"row {_name(record, number)} has no {' and no '.join(lacking)}",
                got=f"columns {', '.join(sorted(record))}",
                expected=", ".join(columns),
                remedy="publish the table with all of them",
            )
        )
    for column in columns:
        if not isinstance(record[column], str):
            raise DataError(
                explain(
                    f"row {_name(record, number)} has no text in {column}",
                    got="null" if record[column] is None else record[column],
                    expected="text",
                    remedy="publish the table without the row, or with its text",
                )
            )


def _name(record: Mapping[str, Any], number: int) -> str:
    """The row's id; its number where it has none."""
    found = record.get("id")
    return str(number if found is None else found)


def tokenise(
    table: Iterable[Mapping[str, Any]], tokenizer: Any, *, prompt: str, max_length: int
) -> TokenRows:
    """Rows of token ids from a table of demonstrations or of texts.

    Args:
        table: rows with `statement`, `thought`, `solution` (demonstrations), or with `prompt_text`
            and `completion_text` already rendered; `id` names a row.
        tokenizer: of the model to train, with a chat template and an end-of-sequence token.
        prompt: name of the prompt, see `still_core.responses.prompts`.
        max_length: longest row in tokens; longer ones are dropped under the reason `too_long`.

    Raises:
        DataError: `check_table` refuses the table; the tokenizer loses a part of a response, or has
            no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(explain("the tokenizer has no end-of-sequence token", expected="eos_token"))
    table = list(table)
    check_table(table, pairs=False)
    rows: list[TokenRow] = []
    dropped: Counter[str] = Counter()
    for number, record in enumerate(table):
        name = _name(record, number)
        prompt_text, completion_text = _texts(record, tokenizer, prompt)
        prompt_ids = encode(tokenizer, prompt_text)
        response_ids = encode(tokenizer, completion_text)
        if len(prompt_ids) + len(response_ids) > max_length:
            dropped["too_long"] += 1
            continue
        check_nothing_lost(name, tokenizer, response_ids, completion_text)
        rows.append(
            TokenRow(id=name, prompt_ids=tuple(prompt_ids), response_ids=tuple(response_ids))
        )
    return TokenRows(rows=rows, dropped=dict(sorted(dropped.items())))


def tokenise_pairs(
    table: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    prompt: str,
    max_length: int,
    thought_only: bool,
) -> PairRows:
    """Pairs of token rows from a table.

    Args:
        table: rows with `statement`, `chosen_thought`, `chosen_solution`, `rejected_thought` and
            `rejected_solution`, or with `prompt_text`, `chosen_text` and `rejected_text` already
            rendered; `id` names a pair.
        tokenizer: of the model to train; a fast one, which knows the characters of its tokens.
        prompt: name of the prompt.
        max_length: longest prompt + response; pairs with a longer side are dropped as `too_long`.
        thought_only: target the tokens up to the end of the thought, marks included, in both
            responses; else all tokens of both.

    Raises:
        DataError: `check_table` refuses the table, or the tokenizer loses a part of a response.
    """
    table = list(table)
    check_table(table, pairs=True)
    rows: list[PairRow] = []
    dropped: Counter[str] = Counter()
    for number, record in enumerate(table):
        name = _name(record, number)
        prompt_text, chosen_text, rejected_text = _pair_texts(record, tokenizer, prompt)
        prompt_ids = tuple(encode(tokenizer, prompt_text))
        chosen_ids, chosen_mask = _target(name, tokenizer, chosen_text, thought_only)
        rejected_ids, rejected_mask = _target(name, tokenizer, rejected_text, thought_only)
        if len(prompt_ids) + max(len(chosen_ids), len(rejected_ids)) > max_length:
            dropped["too_long"] += 1
        elif chosen_ids == rejected_ids:
            dropped["equal_responses"] += 1
        else:
            rows.append(
                PairRow(
                    id=name,
                    prompt_ids=prompt_ids,
                    chosen_ids=chosen_ids,
                    chosen_mask=chosen_mask,
                    rejected_ids=rejected_ids,
                    rejected_mask=rejected_mask,
                )
            )
    return PairRows(rows=rows, dropped=dict(sorted(dropped.items())))


def check_rows_are_left(rows: TokenRows | PairRows, *, field: str, max_length: int) -> None:
    """Refuse a job whose rows were all dropped.

    Args:
        rows: what is left, and what was dropped by reason.
        field: of the recipe, with the longest row: `sft.max_length` or `dpo.max_length`.
        max_length: its value, in tokens.

    Raises:
        DataError: nothing is left.
    """
    if rows.rows:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in rows.dropped.items())
    raise DataError(
        explain(
            "no rows to train on",
            got=f"{sum(rows.dropped.values())} rows, dropped: {reasons or 'none'}",
            expected=f"rows of at most {max_length} tokens ({field})",
            remedy=(
                f"raise {field}"
                if "too_long" in rows.dropped
                else "look at the funnel of the refinement steps"
            ),
        )
    )


def _target(
    name: str, tokenizer: Any, text: str, thought_only: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a response and the mask of its target tokens."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=thought_only)
    ids = tuple(encoded["input_ids"])
    check_nothing_lost(name, tokenizer, ids, text)
    if not thought_only:
        return ids, (1,) * len(ids)
    end = _thought_end(text)
    # A token that reaches over the end of the thought holds a part of the solution: not a target.
    return ids, tuple(int(stop <= end) for _, stop in encoded["offset_mapping"])


def _thought_end(text: str) -> int:
    """Number of characters up to the end of the thought's closing mark; all where none is."""
    from still_core.responses.format import END_THOUGHT

    for mark in (END_THOUGHT, "</think>"):
        at = text.rfind(mark)
        if at >= 0:
            return at + len(mark)
    return len(text)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` as it stands, nothing added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _texts(record: Mapping[str, Any], tokenizer: Any, prompt_name: str) -> tuple[str, str]:
    if "prompt_text" in record:
        return record["prompt_text"], record["completion_text"]
    from still_core.responses.prompts import prompt
    from still_core.responses.response import Response

    asked = prompt(prompt_name)
    response = Response(thought=record["thought"], solution=record["solution"])
    return (
        asked.render(record["statement"], tokenizer),
        asked.render_completion(response, tokenizer),
    )


def _pair_texts(
    record: Mapping[str, Any], tokenizer: Any, prompt_name: str
) -> tuple[str, str, str]:
    if "prompt_text" in record:
        return record["prompt_text"], record["chosen_text"], record["rejected_text"]
    from still_core.responses.prompts import prompt
    from still_core.responses.response import Response

    asked = prompt(prompt_name)
    chosen, rejected = (
        asked.render_completion(
            Response(thought=record[f"{side}_thought"], solution=record[f"{side}_solution"]),
            tokenizer,
        )
        for side in ("chosen", "rejected")
    )
    return asked.render(record["statement"], tokenizer), chosen, rejected


def check_nothing_lost(name: str, tokenizer: Any, ids: Sequence[int], text: str) -> None:
    """A tokenizer that eats (part of) the thought, or the end of the turn, must never pass unseen.

    Raises:
        DataError: the ids decode to another text, or do not end the sequence.
    """
    if not ids or ids[-1] != tokenizer.eos_token_id:
        raise DataError(
            explain(
                f"row {name} does not end with the end-of-sequence token",
                got=text[-30:],
                expected=repr(tokenizer.eos_token),
            )
        )
    back = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    if back != text:
        at = next(
            (i for i, (a, b) in enumerate(zip(back, text, strict=False)) if a != b), len(back)
        )
        raise DataError(
            explain(
                f"the tokenizer does not give back the response of row {name}",
                got=back[at : at + 20],
                expected=f"{text[at : at + 20]!r} at character {at}",
                remedy="train with a tokenizer that covers the text",
            )
        )
