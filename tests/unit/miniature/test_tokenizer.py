"""The tokenizer: exact round trips, format tokens kept, a template that keeps the thought."""

from __future__ import annotations

import random
import string
from pathlib import Path

from still_core.miniature.problems import DOMAINS, generate
from still_core.miniature.teachers import distil
from still_core.miniature.tokenizer import (
    END,
    FORMAT,
    PAD,
    UNKNOWN,
    VOCABULARY_SIZE,
    build_tokenizer,
    vocabulary,
)
from still_core.responses.format import classify, render_response
from still_core.responses.response import Response

RESPONSE = Response(thought="a=527\n\nb+40=567", solution="\\boxed{567}")


def test_every_ascii_text_round_trips() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice(string.printable[:97]) for _ in range(rng.randint(1, 200)))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_response_round_trips_with_one_token_per_mark() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(render_response(RESPONSE))["input_ids"]
    assert classify(tokenizer.decode(ids, skip_special_tokens=False)) == RESPONSE
    assert [ids.count(vocabulary()[token]) for token in FORMAT] == [1, 1, 1, 1]


def test_the_chat_template_keeps_the_thought_and_marks_it_for_the_loss() -> None:
    tokenizer = build_tokenizer()
    messages = [
        {"role": "user", "content": "a527 b+40 total?"},
        {"role": "assistant", "content": render_response(RESPONSE)},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == f"<|user|>a527 b+40 total?<|assistant|>{render_response(RESPONSE)}<|end|>"
    coded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, m in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == render_response(RESPONSE) + END


def test_the_vocabulary_fits_the_embedding_and_knows_all_statements() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(vocabulary()) <= VOCABULARY_SIZE
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    unknown = vocabulary()[UNKNOWN]
    for domain in DOMAINS:
        problems = generate(domain, "hard", 50, seed=0)
        for raw in distil(problems, faults=None):
            assert unknown not in tokenizer(raw.problem.statement)["input_ids"]
            assert unknown not in tokenizer(raw.text)["input_ids"]
    assert unknown in tokenizer("caf\u00e9")["input_ids"]


def test_a_saved_tokenizer_reads_the_same(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = render_response(RESPONSE)
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
