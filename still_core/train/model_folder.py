"""Where a model comes from (package, folder or hub), and what makes a folder a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    _refuse_code(folder)
    for path in folder.glob("*.safetensors"):
        _check_header(path)
    for path in folder.glob("*.index.json"):
        _check_index(folder, path)


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a model's `config.json`.

    Raises:
        ConfigError: it can not be read, or is no JSON object.
    """
    path = folder / "config.json"
    fields = _json(path)
    if not isinstance(fields, dict):
        raise ConfigError(explain(f"{path} is no model's", got=fields, expected="a JSON object"))
    return fields


def model_files(folder: Path) -> dict[str, Path]:
    """The files that make the model, by name: pickles and programs beside them stay behind.

    Links are followed within a hub cache alone, where `snapshots/<commit>/<file>` leads to `blobs`.

    Raises:
        ConfigError: a file that links elsewhere.
    """
    blobs = folder.parent.parent / "blobs"
    found: dict[str, Path] = {}
    for path in sorted(path for pattern in PATTERNS for path in folder.glob(pattern)):
        target = path.resolve()
        if path.is_symlink() and target.parent != blobs.resolve():
            raise ConfigError(
                explain("a model file links out of its folder", got=f"{path} -> {target}")
            )
        if target.is_file():
            found[path.name] = target
    return found


_CODE = ("*.py", "*.pyc", "*.so", "*.dll", "*.dylib")
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate")
"""Keys by which a model's JSON names code of its own."""


def _refuse_code(folder: Path) -> None:
    """Raise ConfigError for programs, or JSON that names some: ours or a hub's."""
    brought = [path.name for pattern in _CODE for path in folder.rglob(pattern)]
    for path in sorted(folder.glob("*config*.json")):
        settings = _json(path)
        brought += [f"{key} in {path.name}" for key in _CODE_KEYS if _names(settings, key)]
        for key in ("attn_implementation", "_attn_implementation"):
            # With a slash it is a repository of kernels on the hub.
            if any("/" in str(value) for value in _names(settings, key)):
                brought.append(f"{key} in {path.name}")
    if brought:
        raise ConfigError(
            explain(
                "the model brings code of its own",
                got=f"{', '.join(brought[:3])} in {folder}",
                remedy="use one that transformers knows",
            )
        )


def _names(value: Any, key: str) -> list[Any]:
    """All values under `key`, at any depth."""
    if isinstance(value, dict):
        mine = [value[key]] if key in value else []
        return mine + [found for inner in value.values() for found in _names(inner, key)]
    if isinstance(value, list):
        return [found for inner in value for found in _names(inner, key)]
    return []


def _check_header(path: Path) -> None:
    """Raise ConfigError where the file is no safetensors: a renamed pickle, overlapping tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ConfigError(explain(f"{path} is no safetensors file ({error})")) from None


def _check_index(folder: Path, index: Path) -> None:
    """Raise ConfigError where an index names anything but safetensors beside it."""
    content = _json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    for shard in set(shards.values()) if isinstance(shards, dict) else {str(shards)}:
        path = folder / str(shard)
        if Path(str(shard)).name != shard or path.suffix != ".safetensors" or not path.is_file():
            raise ConfigError(
                explain(
                    f"{index} names a shard that is no safetensors file beside it", got=str(shard)
                )
            )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(explain(f"{path} can not be read: {error}")) from None


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
