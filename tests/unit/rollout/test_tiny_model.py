"""The tiny model that other tests stand on."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer


def test_the_tiny_tokenizer_gives_back_every_character_and_thought_mark(
    tiny_model_dir: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    text = "<|begin_of_thought|>\n a  b\n\n1+2=3 <|end_of_thought|>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert len(ids) == 2 + len("\n a  b\n\n1+2=3 ")


def test_the_tiny_chat_template_ends_where_the_model_goes_on(tiny_model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\n1+2<|im_end|>\n<|im_start|>assistant\n"
