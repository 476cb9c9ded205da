"""`still model small` and `still model backbone`."""

from __future__ import annotations

import os
from pathlib import Path

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot
from deployments.environment import prepare_environment


def small(
    *files: Path, out: Path, vocabulary: int = 4096, hidden: int = 96, layers: int = 2
) -> None:
    """Make a small untrained model with a tokenizer trained on the files.

    Args:
        files: JSON or JSONL files; every text in them is read.
        out: folder of the model.
        vocabulary: tokens, at least 263: all bytes and the special tokens.
        hidden: width, a multiple of 32.
        layers: decoder layers.
    """
    from still_core.train.small_model import make_small_model

    folder = make_small_model(files, out, vocabulary=vocabulary, hidden=hidden, layers=layers)
    print(folder)


def backbone(*, steps: int = 0, store: StoreRoot = DEFAULT_STORE, device: str = "cpu") -> None:
    """School the miniature's backbone from nothing and print its folder.

    Args:
        steps: optimiser steps; 0 takes the recipe's.
        device: torch device.
    """
    from still_core.doctor import require_prefect
    from still_core.miniature.recipe import SchoolingRecipe
    from still_core.recipes.loading import checked

    schooling = checked(SchoolingRecipe, {"num_steps": steps} if steps else {}, origin="--steps")
    prepare_environment()
    from flows.backbone import miniature_backbone

    require_prefect(os.environ)
    print(miniature_backbone(schooling=schooling, store=store, device=device))
