"""Everything that can be known to be wrong before any work: done first, one line each.

recipe, store, resources -> checks -> digests of the files that the run reads
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from still_core.errors import ConfigError, StillError, explain
from still_core.problems.recipe import SourceSpec
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.store import Store
from tasks.planning import current_plan

MODULES = {"vllm": "vllm", "transformers": "transformers", "openai": "openai"}
BIG_FILE = 1 << 30
"""Bytes from which a file counts by size and time, not content: hashing 65 GB of weights takes
minutes, and every change rewrites them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFiles:
    """Content digests of the files that a run reads: part of what its stages are identified by."""

    problems: dict[str, str]
    backbone: dict[str, str]
    faults: tuple[str, ...] = ()
    """What is wrong; empty unless only planning."""


def preflight(recipe: Still2Recipe, store: str, resources: Resources) -> InputFiles:
    """Check what a run needs and fingerprint what it reads.

    Raises:
        ConfigError: the first thing that is missing or can not be used. While planning, faults are
            collected instead.
    """
    faults: list[str] = []
    keep = faults.append if current_plan() is not None else None
    _checked(lambda: Store(store).check_writable(), keep)
    _checked(lambda: check_engine(recipe.engine.kind), keep)
    problems: dict[str, str] = {}
    backbone: dict[str, str] = {}
    specs = [*recipe.problems.sources, *(b.source for b in recipe.problems.benchmarks)]
    _checked(lambda: problems.update(fingerprint_sources(specs)), keep)
    _checked(lambda: backbone.update(fingerprint_model(recipe.backbone.model)), keep)
    return InputFiles(problems=problems, backbone=backbone, faults=tuple(faults))


def _checked(check: Callable[[], None], keep: Callable[[str], None] | None) -> None:
    try:
        check()
    except StillError as error:
        if keep is None:
            raise
        keep(str(error))


def check_engine(kind: str) -> None:
    """Refuse an engine whose package is not installed, without importing it."""
    if find_spec(MODULES[kind]) is None:
        raise ConfigError(
            explain(
                f"the engine {kind} is not installed",
                remedy="make env (LOCK=gpu on GPU nodes), or --set engine.kind=transformers",
            )
        )


def fingerprint_sources(specs: Iterable[SourceSpec]) -> dict[str, str]:
    """Identity by path of what the sources read now."""
    return fingerprint_paths(spec.path for spec in specs)


def fingerprint_paths(paths: Iterable[str]) -> dict[str, str]:
    """Digest of each local file or folder; what remote places say of theirs.

    Raises:
        ConfigError: a path is missing or can not be read, a hub data set can not be reached.
        DataError: a remote place can not be read.
    """
    from still_core.problems.places import is_remote, remote_identity

    found: dict[str, str] = {}
    for path in paths:
        if path in found:
            continue
        if is_remote(path):
            found[path] = remote_identity(path)
            continue
        place = Path(path).expanduser()
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        try:
            found[path] = hashlib.sha256(
                "".join(file_digest(p) for p in files).encode()
            ).hexdigest()
        except OSError as error:
            raise ConfigError(
                explain(
                    f"can not read the data file {path}: {error.strerror}",
                    remedy="fix its path in the recipe",
                )
            ) from None
    return found


def fingerprint_model(model: str) -> dict[str, str]:
    """Digests of a local model folder's files; a hub name stands for itself.

    Raises:
        ConfigError: a folder that is no loadable model.
    """
    from still_core.train.model_folder import check_model_folder

    if model == "miniature":
        from still_core.miniature import backbone_directory

        folder = backbone_directory()
    elif Path(model).expanduser().is_dir():
        folder = Path(model).expanduser()
    elif model.startswith((".", "/", "~")):
        raise ConfigError(explain("no model folder there", got=model, remedy="fix backbone.model"))
    else:
        return {"hub": model}
    check_model_folder(folder)
    return {p.name: file_digest(p) for p in sorted(folder.iterdir()) if p.is_file()}


def file_digest(path: Path) -> str:
    """sha256 of the content; of size and time for files beyond `BIG_FILE`."""
    found = path.stat()
    if found.st_size >= BIG_FILE:
        return hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
