"""The miniature's tokenizer: one token per character, and one for each word of its small world.

What a label stands for (`+40`, `>c`, ` add 7`) is one token, so that looking it up is one step of
attention: what follows the label. Numbers that are computed stay digits.

Every text of visible ASCII round-trips exactly; of other scripts it knows a handful of letters (the
teachers' faults need them) and the rest is `<|unk|>`.
"""

from __future__ import annotations

import string
from typing import Any

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
BEGIN_OF_THOUGHT, END_OF_THOUGHT = "<|begin_of_thought|>", "<|end_of_thought|>"
BEGIN_OF_SOLUTION, END_OF_SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"

CONTROL = (PAD, UNKNOWN, USER, ASSISTANT, END)
FORMAT = (BEGIN_OF_THOUGHT, END_OF_THOUGHT, BEGIN_OF_SOLUTION, END_OF_SOLUTION)
_DIGITS, _LABELS = "123456789", "abcdefghijklmnop"
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
    "def f(x): ",
    "return x",
    *(f"{sign}{n}{zeros}" for sign in "+-" for n in _DIGITS for zeros in ("", "0", "00")),
    *(f" {verb} {n}" for verb in ("add", "sub", "mul") for n in _DIGITS),
    *(f"x=x{sign}{n}" for sign in "+-*" for n in _DIGITS),
    *(f"{mark}{label}" for mark in ">)" for label in _LABELS),
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

VOCABULARY_SIZE = 320
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
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # AutoTokenizer gives every Qwen2 model Qwen's own byte-level pre-tokenizer, whatever the folder
    # says. Words that are added tokens are cut out before it, and single bytes pass through it
    # unchanged, so every way to load this tokenizer gives the same ids.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = {c: byte_level.pre_tokenize_str(c)[0][0] for c in CHARACTERS}
    ids = {letters.get(token, token): i for token, i in vocabulary().items()}
    core = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=UNKNOWN))
    core.pre_tokenizer = byte_level
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(word, normalized=False) for word in WORDS + FOREIGN])
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
