"""The miniature's tokenizer: one token per character, and one for each word of its small world.

Every text of visible ASCII round-trips exactly; of other scripts it knows a handful of letters (the
teachers' faults need them) and the rest is `<|unk|>`.
"""

from __future__ import annotations

import re
import string
from typing import Any

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
BEGIN_OF_THOUGHT, END_OF_THOUGHT = "<|begin_of_thought|>", "<|end_of_thought|>"
BEGIN_OF_SOLUTION, END_OF_SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"

CONTROL = (PAD, UNKNOWN, USER, ASSISTANT, END)
FORMAT = (BEGIN_OF_THOUGHT, END_OF_THOUGHT, BEGIN_OF_SOLUTION, END_OF_SOLUTION)
WORDS = (
    "\\boxed{",
    "\n\n",
    " total?",
    " hops?",
    " code?",
    " read",
    " after",
    " go",
    " list?",
    " run?",
    " sum?",
    " pick",
    " trail",
    " line?",
    "end",
    " add ",
    " sub ",
    " mul ",
    "def f(x): ",
    "x=x",
    "return x",
    *(
        f"{sign}{digit}{zeros}"
        for sign in "+-"
        for digit in "123456789"
        for zeros in ("", "0", "00")
    ),
    *(f"*{digit}" for digit in "23456789"),
)
CHARACTERS = tuple(string.ascii_letters + string.digits + string.punctuation + " \n\t")
FOREIGN = tuple("的是在我们等于所以答案是什么那么接下来加减首先然后得到步骤计算")
"""Letters that the teachers' mixed-script fault writes."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Roles other than the assistant's read as the user's: the miniature knows no system prompt."""

VOCABULARY_SIZE = 256
"""Rows of the embedding: the vocabulary rounded up to a multiple of 64."""

MAX_LENGTH = 512
"""Longest sequence, in tokens."""


def vocabulary() -> dict[str, int]:
    """Token text to id, in a fixed order."""
    return {
        token: i
        for i, token in enumerate(dict.fromkeys([*CONTROL, *FORMAT, *WORDS, *CHARACTERS, *FOREIGN]))
    }


def build_tokenizer() -> Any:
    """The tokenizer as a `transformers.PreTrainedTokenizerFast`, chat template included.

    Returns:
        A tokenizer of at most `VOCABULARY_SIZE` tokens whose control and format tokens are special:
        kept when decoded with `skip_special_tokens=False`.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    # Longest word first: the alternation takes the first branch that matches.
    words = "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    specials = [AddedToken(token, special=True, normalized=False) for token in CONTROL + FORMAT]
    core.add_special_tokens(specials)
    fast: Any = PreTrainedTokenizerFast  # untyped upstream
    tokenizer = fast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
