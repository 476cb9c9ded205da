"""A small untrained model whose byte-level BPE tokenizer is trained on given files.

files -> every text in them -> BPE -> tokenizer with Qwen's chat template -> Qwen2 weights at random

It knows nothing and solves nothing: it takes the path that a real model takes, with real text and
real lengths, on a machine without a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from still_core.errors import ConfigError, explain
from still_core.responses.format import TOKENS

END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
SPECIALS = (PAD, START, END, *TOKENS)
NUM_BYTES = 256
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\\n{{ message['content'] }}"
    "<|im_end|>\\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)


def make_small_model(
    files: Sequence[Path],
    directory: Path,
    *,
    vocabulary: int = 4096,
    hidden: int = 96,
    layers: int = 2,
    max_length: int = 16_384,
    seed: int = 0,
) -> Path:
    """Write tokenizer and random weights to `directory`; equal arguments give equal files.

    Args:
        files: JSON or JSONL; the tokenizer is trained on every string value in them.
        directory: made if need be.
        vocabulary: tokens, special ones and all bytes included.
        hidden: width, a multiple of 32.
        layers: decoder layers.
        max_length: longest sequence, in tokens.
        seed: of the weights.

    Raises:
        ConfigError: no file, or one is missing or is not JSON; a vocabulary or a shape that there
            can not be.
    """
    _check(files, vocabulary, hidden, layers)
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer(files, vocabulary, max_length)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    build: Any = Qwen2ForCausalLM  # untyped upstream
    model = build(config)
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
    return directory


def _check(files: Sequence[Path], vocabulary: int, hidden: int, layers: int) -> None:
    if not files:
        raise ConfigError(explain("no file to train the tokenizer on", remedy="name JSON files"))
    least = NUM_BYTES + len(SPECIALS)
    for name, got, possible, expected in (
        ("vocabulary", vocabulary, vocabulary >= least, f"{least} or more: bytes, special tokens"),
        ("hidden", hidden, hidden >= 32 and hidden % 32 == 0, "a multiple of 32"),
        ("layers", layers, layers >= 1, "1 or more"),
    ):
        if not possible:
            raise ConfigError(explain(name, got=got, expected=expected))


def _tokenizer(files: Sequence[Path], vocabulary: int, max_length: int) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((text for file in files for text in _texts(file)), trainer)
    learnt = json.loads(core.to_str())["model"]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in learnt["merges"]
    ]
    qwen: Any = Qwen2Tokenizer  # untyped upstream
    tokenizer = qwen(
        vocab=learnt["vocab"],
        merges=merges,
        unk_token=None,
        eos_token=END,
        pad_token=PAD,
        model_max_length=max_length,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [START, *TOKENS]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _texts(file: Path) -> Iterator[str]:
    try:
        content = file.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in content.splitlines() if line.strip()]
            if file.suffix == ".jsonl"
            else json.loads(content)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(explain(f"can not read texts from {file}: {error}")) from None
    yield from _strings(rows)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
