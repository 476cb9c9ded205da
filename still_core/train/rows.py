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
