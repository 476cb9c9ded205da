"""Which weights an engine must hold: their place, digest and version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from still_core.errors import ConfigError, explain
from still_core.identity import digest
from still_core.store.handle import Handle

_IRRELEVANT = frozenset(
    {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
)
"""Keys of config.json that a trainer may change without changing the architecture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """One policy's weights, as told to every worker."""

    directory: str
    """Local model folder; may lack on other nodes, which then fetch `handle` from `store_uri`."""
    policy_digest: str
    policy_version: int
    handle: Handle | None = None
    store_uri: str = ""

    def resolve(self) -> Path:
        """The model folder on this node, fetched from the store if it is not here.

        Raises:
            ConfigError: neither the folder nor a handle to fetch it by is there, or the folder
                brings pickles or code that a loader would run.
        """
        from still_core.train.model_folder import check_model_folder

        directory = Path(self.directory)
        if not directory.is_dir():
            if self.handle is None:
                raise ConfigError(
                    explain("model folder", got=self.directory, expected="an existing folder")
                )
            from still_core.store import Store

            directory = Store(self.store_uri).fetch(self.handle)
        check_model_folder(directory)
        return directory


def shape_digest(directory: Path) -> str:
    """Digest of architecture, tokenizer and end tokens, which engines read at their start alone.

    Equal where weights can be swapped in a live engine.

    Raises:
        ConfigError: the folder has no readable config.json or no tokenizer.
    """
    config, tokenizer = _json(directory, "config.json"), _json(directory, "tokenizer.json")
    kept = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    # Left behind by whoever padded or cut a batch last; they do not touch generation.
    tokenizer = {k: v for k, v in tokenizer.items() if k not in ("padding", "truncation")}
    return digest([kept, tokenizer, _end_tokens(directory, config)])


def _end_tokens(directory: Path, config: dict[str, Any]) -> list[int]:
    """The tokens that end a response; without generation_config.json those of config.json."""
    name = "generation_config.json"
    generation = _json(directory, name) if (directory / name).is_file() else config
    ends = generation.get("eos_token_id")
    return sorted({ends} if isinstance(ends, int) else set(ends or ()))


def _json(directory: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / name).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            explain(
                f"model folder {directory} has no readable {name}",
                got=str(error),
                remedy="give a folder written by save_pretrained of model and tokenizer",
            )
        ) from error
    return content


def directory_digest(directory: Path) -> str:
    """Digest of the files of a model folder, weights and settings: names and content.

    Raises:
        ConfigError: the folder holds no safetensors.
    """
    from still_core.train.model_folder import PATTERNS

    files = sorted(path for pattern in PATTERNS for path in directory.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise ConfigError(
            explain("model folder holds no weights", got=str(directory), expected="*.safetensors")
        )
    parts = []
    for path in files:
        with path.open("rb") as file:
            parts.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return digest(parts)
