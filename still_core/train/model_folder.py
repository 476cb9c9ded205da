"""Where a model comes from (package, folder or hub), and what makes a folder a model."""

from __future__ import annotations

import json
from pathlib import Path

from still_core.errors import ConfigError, explain

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""Files of a model; nothing else is fetched, so pickled weights and code never arrive."""


def model_folder(model: str) -> Path:
    """A local folder with the model named in a recipe.

    Args:
        model: `miniature` for the backbone that ships with the package, a folder, or a hub name.

    Raises:
        ConfigError: nothing loadable is there.
    """
    if model == "miniature":
        from still_core.miniature import backbone_directory

        return backbone_directory()
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _fetched(model)
    check_model_folder(folder)
    return folder


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that is no model of safetensors with a tokenizer, or that brings code along.

    Raises:
        ConfigError: with what is missing.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(explain("no model folder: config.json is missing", got=str(folder)))
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            explain(
                "the model has no safetensors weights", got=str(folder), remedy="convert it first"
            )
        )
    if (
        not (folder / "tokenizer.json").is_file()
        and not (folder / "tokenizer_config.json").is_file()
    ):
        raise ConfigError(
            explain(
                "the model folder has no tokenizer",
                got=str(folder),
                expected="tokenizer.json or tokenizer_config.json",
                remedy="save the tokenizer beside the weights",
            )
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(explain(f"config.json of {folder} can not be read: {error}")) from None
    if "auto_map" in config or any(folder.glob("*.py")):
        raise ConfigError(
            explain(
                "the model brings code of its own",
                got=str(folder),
                remedy="use one that transformers knows",
            )
        )


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(PATTERNS)))
    except (OSError, ValueError) as error:
        raise ConfigError(
            explain(
                f"the hub does not give the model {model}: {str(error).splitlines()[0]}",
                remedy="fix backbone.model, or put the model into a local folder",
            )
        ) from None
