"""Everything that can be known to be wrong before any work: done first, one line each.

recipe, store, resources -> checks -> digests of the files that the run reads
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from still_core.errors import ConfigError, StillError, explain
from still_core.problems.recipe import SourceSpec
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.refine.recipe import DistilRecipe
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
    teachers: dict[str, dict[str, str]]
    """By the folder or name of each local teacher."""
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
    _checked(lambda: check_pool(recipe), keep)
    problems: dict[str, str] = {}
    backbone: dict[str, str] = {}
    teachers: dict[str, dict[str, str]] = {}
    specs = [*recipe.problems.sources, *(b.source for b in recipe.problems.benchmarks)]
    _checked(lambda: problems.update(fingerprint_sources(specs)), keep)
    _checked(lambda: backbone.update(fingerprint_model(recipe.backbone.model)), keep)
    _checked(lambda: teachers.update(fingerprint_teachers(recipe.distil)), keep)
    return InputFiles(problems=problems, backbone=backbone, teachers=teachers, faults=tuple(faults))


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


def check_pool(recipe: Still2Recipe) -> None:
    """Refuse rounds over problem sources that the recipe does not declare."""
    declared = {source.name for source in recipe.problems.sources}
    unknown = sorted(set(recipe.pool.sources) - declared)
    if recipe.rounds and unknown:
        raise ConfigError(
            explain(
                "pool.sources names what is not declared",
                got=unknown,
                expected=sorted(declared),
                remedy="name sources of the recipe, or none for all",
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
    from still_core.problems.rows import local_files

    found: dict[str, str] = {}
    for path in paths:
        if path in found:
            continue
        if is_remote(path):
            found[path] = remote_identity(path)
            continue
        files = local_files(path)
        if not files:
            raise ConfigError(
                explain("no data there", got=path, remedy="fix its path in the recipe")
            )
        # Rows of several files are named after their files.
        folder = os.path.commonpath(files) if len(files) > 1 else files[0]
        named = [os.path.relpath(p, folder) for p in files]
        try:
            digests = [f"{name}\0{file_digest(p)}" for name, p in zip(named, files, strict=True)]
            found[path] = hashlib.sha256("\n".join(digests).encode()).hexdigest()
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
        raise ConfigError(
            explain("no model folder there", got=model, remedy="fix the path in the recipe")
        )
    else:
        return {"hub": model}
    check_model_folder(folder)
    return {p.name: file_digest(p) for p in sorted(folder.iterdir()) if p.is_file()}


def fingerprint_teachers(distil: DistilRecipe) -> dict[str, dict[str, str]]:
    """Digests of the local teachers' files, by teacher's source."""
    local = [teacher.source for teacher in distil.teachers if teacher.kind == "local"]
    return {source: fingerprint_model(source) for source in local}


def file_digest(path: Path) -> str:
    """sha256 of the content; of size and time for files beyond `BIG_FILE`."""
    found = path.stat()
    if found.st_size >= BIG_FILE:
        return hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
