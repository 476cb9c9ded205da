"""The shipped backbone: the bytes that its record names, fast and right on short problems alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from still_core.miniature.backbone import WEIGHTS, backbone_directory
from still_core.miniature.problems import generate
from still_core.miniature.tokenizer import ASSISTANT, END, USER
from still_core.rollout.weights import shape_digest
from still_core.verify.extraction import extract_final_answer

pytestmark = pytest.mark.skipif(
    not (WEIGHTS / "model.safetensors").is_file(), reason="this copy holds no trained weights"
)


@pytest.fixture(scope="module")
def backbone() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = backbone_directory()
    return AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)


def _accuracy(backbone: tuple[Any, Any], lengths: tuple[int, int], count: int) -> float:
    import torch

    model, tokenizer = backbone
    right = 0
    for problem in generate("arithmetic", "hard@dev", count, seed=5, lengths=lengths):
        ids = tokenizer(USER + problem.statement + ASSISTANT)["input_ids"]
        drawn = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0]
        text = tokenizer.decode(drawn[len(ids) :]).removesuffix(END)
        right += extract_final_answer(text) == problem.gold
    return right / count


def test_the_weights_are_those_of_the_record() -> None:
    record = json.loads((WEIGHTS / "schooling.json").read_text())
    found = hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).hexdigest()
    assert found == record["sha256"]


def test_the_backbone_answers_two_terms_at_once_and_fails_on_nine(
    backbone: tuple[Any, Any],
) -> None:
    assert _accuracy(backbone, (2, 2), 25) >= 0.9
    assert _accuracy(backbone, (9, 13), 15) <= 0.1


def test_a_trained_model_fits_the_engines_of_the_backbone(
    backbone: tuple[Any, Any], tmp_path: Path
) -> None:
    for part in backbone:
        part.save_pretrained(tmp_path)
    assert shape_digest(tmp_path) == shape_digest(backbone_directory())
