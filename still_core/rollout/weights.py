"""Which weights an engine must hold: their place, digest and version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

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
    """Digest of architecture and tokenizer: equal where weights can be swapped in a live engine.

    Raises:
        ConfigError: the folder has no readable config.json or no tokenizer.
    """
    parts = []
    for name in ("config.json", "tokenizer.json"):
        try:
            part = json.loads((directory / name).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                explain(
                    f"model folder {directory} has no readable {name}",
                    got=str(error),
                    remedy="give a folder written by save_pretrained of model and tokenizer",
                )
            ) from error
        parts.append(part)
    config, tokenizer = parts
    kept = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    # Left behind by whoever padded or cut a batch last; they do not touch generation.
    tokenizer = {k: v for k, v in tokenizer.items() if k not in ("padding", "truncation")}
    return digest([kept, tokenizer])


def directory_digest(directory: Path) -> str:
    """Digest of the weight files of a model folder: names, sizes and content.

    Raises:
        ConfigError: the folder holds no safetensors.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            explain("model folder holds no weights", got=str(directory), expected="*.safetensors")
        )
    parts = []
    for path in files:
        with path.open("rb") as file:
            parts.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return digest(parts)
