"""A model folder's tokenizer as text to token ids and back, and whether it keeps the thought.

model folder -> Codec -> check_thought_survives
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from still_core.errors import ConfigError, explain
from still_core.responses.prompts import Prompt
from still_core.responses.response import Response

_PROBE = Response(
    thought="Hmm, 2 + 2.\n\nWait, let me check:  4 - 2 = 2.\nSo it holds; 4 < 5 & 4 > 3.",
    solution="The sum is \\boxed{4}.",
)


class Codec(NamedTuple):
    """Text to token ids and back, no special token added or left out."""

    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]


def read_codec(folder: Path) -> Codec:
    """The tokenizer of a model folder; `tokenizer.json` is read without importing transformers.

    Raises:
        ConfigError: it can not be read.
    """
    try:
        return _fast(folder) if (folder / "tokenizer.json").is_file() else _slow(folder)
    # The reader of tokenizer.json raises a plain Exception.
    except Exception as error:
        raise ConfigError(
            explain(
                f"the tokenizer in {folder} can not be read",
                got=f"{type(error).__name__}: {error}",
                remedy="save the tokenizer beside the weights again",
            )
        ) from error


def _fast(folder: Path) -> Codec:
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    return Codec(
        encode=lambda text: list(fast.encode(text, add_special_tokens=False).ids),
        decode=lambda ids: str(fast.decode(list(ids), skip_special_tokens=False)),
    )


def _slow(folder: Path) -> Codec:
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(folder)
    return Codec(
        encode=lambda text: list(slow.encode(text, add_special_tokens=False)),
        decode=lambda ids: str(
            slow.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        ),
    )


def read_chat_template(folder: Path) -> Any:
    """The chat template that the folder's tokenizer will have, empty where it has none."""
    if (template := folder / "chat_template.jinja").is_file():
        return template.read_text(encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return found.get("chat_template", "") if isinstance(found, dict) else ""


def check_thought_survives(asked: Prompt, codec: Codec) -> None:
    """Check that a response in the prompt's markup comes back from tokenisation byte for byte.

    The probe is plain English with blank lines, runs of blanks and a formula; letters of the data
    that a tokenizer does not know are found row by row when a model is trained.

    Raises:
        ConfigError: the tokenizer changes or loses part of it.
    """
    text = asked.render_response(_PROBE)
    back = codec.decode(codec.encode(text))
    if back != text:
        at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), 0)
        raise ConfigError(
            explain(
                "the tokenizer does not give the thought back",
                got=back[at : at + 40],
                expected=repr(text[at : at + 40]),
                remedy="use a tokenizer that is lossless on newlines and on the marks "
                + " ".join(asked.markup.marks()),
            )
        )
