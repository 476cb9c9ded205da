"""The backbone: batches carry loss on answers alone, schooling learns and repeats, files load."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import pytest

from still_core.errors import MissingError
from still_core.miniature import backbone
from still_core.miniature.backbone import (
    IGNORED,
    backbone_directory,
    random_backbone,
    train_backbone,
)
from still_core.miniature.drills import DRILLS, SHORT, draw
from still_core.miniature.problems import Split, parse
from still_core.miniature.recipe import SchoolingRecipe
from still_core.miniature.tokenizer import ASSISTANT, FORMAT, UNKNOWN, build_tokenizer, vocabulary
from still_core.progress import Progress

TINY = SchoolingRecipe(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    num_steps=40,
    tokens_per_batch=1024,
)


def test_schooling_lowers_the_loss_and_repeats_to_the_byte(tmp_path: Path) -> None:
    seen: list[Progress] = []
    first = train_backbone(TINY, tmp_path / "a", progress=seen.append)
    again = train_backbone(TINY, tmp_path / "b")
    assert first["sha256"] == again["sha256"]
    assert seen[-1].done == 40
    assert seen[-1].facts["loss"] < 5.0  # ln(256) = 5.5 is a guess among all tokens
    assert json.loads((tmp_path / "a" / "schooling.json").read_text())["tokens"] > 20_000


def test_a_random_backbone_loads_with_its_tokenizer_and_ends_at_end(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    random_backbone(tmp_path, seed=3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.model_type == "qwen2"
    assert 1_000_000 < model.num_parameters() < 3_000_000
    assert len(tokenizer) <= model.config.vocab_size
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_loss_falls_on_answers_alone() -> None:
    assistant = vocabulary()[ASSISTANT]
    for rows, labels in islice(backbone._batches(TINY), 20):
        assert len(rows) * len(rows[0]) <= TINY.tokens_per_batch
        for row, label in zip(rows, labels, strict=True):
            at = row.index(assistant)
            assert all(one == IGNORED for one in label[: at + 1])
            assert [o for o in label if o != IGNORED] == row[at + 1 :][
                : sum(o != IGNORED for o in label)
            ]


def test_no_drill_shows_a_thought_or_answers_a_long_or_reserved_problem() -> None:
    rng, tokenizer = random.Random(7), build_tokenizer()
    for _ in range(3000):
        prompt, answer = draw(rng)
        assert not any(token in prompt + answer for token in FORMAT)
        if "\\boxed" in answer:
            question = parse(prompt)
            assert answer == f"\\boxed{{{question.answer()}}}"
            assert len(question.steps()) <= SHORT[type(question).__name__.lower()]
            assert Split.TRAIN.holds(prompt)
    for drill, _ in DRILLS:
        prompt, answer = drill(rng)
        assert vocabulary()[UNKNOWN] not in tokenizer(prompt + answer)["input_ids"]


def test_a_package_without_weights_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "WEIGHTS", tmp_path)
    with pytest.raises(MissingError, match="no trained backbone"):
        backbone_directory()
