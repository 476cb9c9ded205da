"""`still model small`."""

from __future__ import annotations

from pathlib import Path


def small(
    *files: Path, out: Path, vocabulary: int = 4096, hidden: int = 96, layers: int = 2
) -> None:
    """Make a small untrained model with a tokenizer trained on the files.

    Args:
        files: JSON or JSONL files; every text in them is read.
        out: folder of the model.
        vocabulary: tokens.
        hidden: width, a multiple of 32.
        layers: decoder layers.
    """
    from still_core.train.small_model import make_small_model

    folder = make_small_model(files, out, vocabulary=vocabulary, hidden=hidden, layers=layers)
    print(folder)
