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
        DataError: the tokenizer loses a part of a response, or has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(explain("the tokenizer has no end-of-sequence token", expected="eos_token"))
    rows: list[TokenRow] = []
    dropped: Counter[str] = Counter()
    for number, record in enumerate(table):
        name = str(record.get("id", number))
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
        DataError: the tokenizer loses a part of a response.
    """
    rows: list[PairRow] = []
    dropped: Counter[str] = Counter()
    for number, record in enumerate(table):
        name = str(record.get("id", number))
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
        return str(record["prompt_text"]), str(record["completion_text"])
    from still_core.responses.prompts import prompt, render_demonstration
    from still_core.responses.response import Demonstration

    rendered = render_demonstration(
        prompt(prompt_name), Demonstration.from_row(dict(record)), tokenizer
    )
    return rendered.prompt_text, rendered.completion_text


def _pair_texts(
    record: Mapping[str, Any], tokenizer: Any, prompt_name: str
) -> tuple[str, str, str]:
    if "prompt_text" in record:
        return (
            str(record["prompt_text"]),
            str(record["chosen_text"]),
            str(record["rejected_text"]),
        )
    from still_core.responses.prompts import prompt
    from still_core.responses.response import Response

    asked = prompt(prompt_name)
    chosen, rejected = (
        asked.render_completion(
            Response(
                thought=str(record[f"{side}_thought"]), solution=str(record[f"{side}_solution"])
            ),
            tokenizer,
        )
        for side in ("chosen", "rejected")
    )
    return asked.render(str(record["statement"]), tokenizer), chosen, rejected


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
