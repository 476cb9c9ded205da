"""Everything that can be known to be wrong before any work: done first, one line each.

recipe, store, resources -> checks -> digests of the files that the run reads
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from still_core.errors import ConfigError, StillError, explain
from still_core.problems.recipe import SourceSpec
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.responses.codec import Codec, check_thought_survives, read_chat_template, read_codec
from still_core.responses.prompts import QUESTION, prompt
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.store import Store
from tasks.planning import current_plan

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


def preflight(
    recipe: Still2Recipe, store: str, resources: Resources, reports: str = ""
) -> InputFiles:
    """Check what a run needs and fingerprint what it reads.

    Args:
        recipe: of the run.
        store: root of its store.
        resources: where engines and teachers are.
        reports: folder of its report; empty where none is written.

    Raises:
        StillError: what is missing or can not be used; a ConfigError with all of it where there is
            more than one such thing. While planning they are only collected.
    """
    faults = Faults()
    faults.passes(lambda: Store(store).check_writable())
    if reports and current_plan() is None:
        faults.passes(lambda: check_reports(reports))
    faults.passes(lambda: check_engine(recipe.engine))
    for teacher in recipe.distil.teachers:
        faults.passes(partial(check_teacher, teacher, resources.rollout))
    faults.passes(lambda: check_pool(recipe))
    problems: dict[str, str] = {}
    backbone: dict[str, str] = {}
    teachers: dict[str, dict[str, str]] = {}
    for paths in _paths_apart(recipe):
        faults.passes(partial(_fingerprint_into, problems, paths))
    if faults.passes(lambda: backbone.update(fingerprint_model(recipe.backbone.model))):
        _check_backbone(recipe, faults)
    faults.passes(lambda: teachers.update(fingerprint_teachers(recipe.distil)))
    if current_plan() is None:
        faults.raise_any()
    return InputFiles(
        problems=problems, backbone=backbone, teachers=teachers, faults=faults.lines()
    )


class Faults:
    """What is wrong, collected: whoever asked mends all of it at once."""

    def __init__(self) -> None:
        self._errors: list[StillError] = []

    def passes(self, check: Callable[[], None]) -> bool:
        """Whether the check finds nothing wrong; what it finds is kept."""
        try:
            check()
        except StillError as error:
            self._errors.append(error)
            return False
        return True

    def lines(self) -> tuple[str, ...]:
        """One line for each."""
        return tuple(str(error) for error in self._errors)

    def raise_any(self) -> None:
        """Raise the one fault as it is, several as one ConfigError that lists them."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            listed = " ".join(f"({n}) {line};" for n, line in enumerate(self.lines(), 1))
            raise ConfigError(
                explain(f"{len(self._errors)} things to mend before the run: {listed[:-1]}")
            )


def _paths_apart(recipe: Still2Recipe) -> list[list[str]]:
    """Each local path by itself, so that all that miss are named; remote ones together, as a hub
    out of reach is waited for once."""
    from still_core.problems.places import is_remote

    specs = [*recipe.problems.sources, *(b.source for b in recipe.problems.benchmarks)]
    paths = list(dict.fromkeys(spec.path for spec in specs))
    apart = [[path] for path in paths if not is_remote(path)]
    return [*apart, [path for path in paths if is_remote(path)]]


def check_reports(folder: str) -> None:
    """Refuse a folder that the report can not be written to; makes it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise ConfigError(
            explain(
                f"the report folder {folder} can not be written",
                got=error.strerror,
                remedy="choose another folder or free some space",
            )
        ) from None


def check_engine(engine: EngineRecipe) -> None:
    """Refuse an engine that can not load the weights it is given, or whose package is not
    installed, without importing it."""
    if engine.kind == "openai":
        raise ConfigError(
            explain(
                "engine.kind=openai can not load the weights of a model: an endpoint answers with "
                "what it serves",
                expected="vllm or transformers",
                remedy="set engine.kind; an endpoint can be a teacher: "
                "distil.teachers[].kind=endpoint",
            )
        )
    if find_spec(engine.kind) is None:
        raise ConfigError(
            explain(
                f"the engine {engine.kind} is not installed",
                remedy="make env (LOCK=gpu on GPU nodes), or --set engine.kind=transformers",
            )
        )


def check_teacher(teacher: Teacher, resources: RolloutResources) -> None:
    """Refuse a teacher that can not be asked: no address, or a script that there is not."""
    if teacher.kind == "endpoint":
        from still_core.distil.teachers import check_endpoint

        check_endpoint(teacher, resources)
    if teacher.kind == "scripted":
        from still_core.miniature.teachers import distil

        distil([], teacher.source)


def check_teachers(recipe: Still2Recipe, resources: RolloutResources) -> None:
    """Refuse teachers that can not be asked, all before the first is, and an engine that can not
    run the local ones.

    Raises:
        ConfigError: what is wrong, all of it.
    """
    faults, draw = Faults(), LongestDraw(recipe.distil.max_tokens, "bare")
    for teacher in recipe.distil.teachers:
        faults.passes(partial(check_teacher, teacher, resources))
    local = recipe.distil.local_models()
    if local:
        faults.passes(lambda: check_engine(recipe.engine))
    for folder in map(local_folder, local):
        codec = None if folder is None else read_codec(folder)
        faults.passes(partial(check_room, "distil.max_tokens", draw, recipe.engine, codec))
    faults.raise_any()


def _fingerprint_into(problems: dict[str, str], paths: list[str]) -> None:
    problems.update(fingerprint_paths(paths))


def _check_backbone(recipe: Still2Recipe, faults: Faults) -> None:
    """Hold the recipe against the model's tokenizer and positions, where it lies here."""
    from still_core.train.model_folder import read_config

    asked = prompt(recipe.backbone.prompt)
    codecs: list[Codec] = []
    if (folder := local_folder(recipe.backbone.model)) is not None:
        configs: list[dict[str, Any]] = []
        faults.passes(lambda: configs.append(read_config(folder)))
        for config in configs:
            for field, length in _longest_sequences(recipe).items():
                faults.passes(partial(check_positions, field, length, folder, config))
        faults.passes(lambda: asked.check_template(read_chat_template(folder)))
        faults.passes(lambda: codecs.append(read_codec(folder)))
    codec = codecs[0] if codecs else None
    if codec is not None:
        faults.passes(lambda: check_thought_survives(asked, codec))
    for field, draw in _longest_draws(recipe).items():
        faults.passes(partial(check_room, field, draw, recipe.engine, codec))


class LongestDraw(NamedTuple):
    """The longest completion that is asked for somewhere, and after which prompt."""

    max_tokens: int
    prompt: str


def _longest_draws(recipe: Still2Recipe) -> dict[str, LongestDraw]:
    """By the field that says how long; measured pass rates are drawn as exploration is."""
    asked = recipe.backbone.prompt
    draws = {}
    if recipe.problems.benchmarks:
        draws["evaluate.sampling.max_tokens"] = LongestDraw(
            recipe.evaluate.sampling.max_tokens, asked
        )
    if recipe.rounds:
        draws["explore.sampling.max_tokens"] = LongestDraw(
            recipe.explore.sampling.max_tokens, asked
        )
    if recipe.distil.local_models():
        draws["distil.max_tokens"] = LongestDraw(recipe.distil.max_tokens, "bare")
    return draws


def check_room(field: str, draw: LongestDraw, engine: EngineRecipe, codec: Codec | None) -> None:
    """Refuse a completion that does not fit into the context beside the shortest question.

    Args:
        field: of the recipe, that says how long it may be.
        draw: what is asked for.
        engine: with the context.
        codec: of the model; without one the prompt counts as a single token.
    """
    text = prompt(draw.prompt).text.replace(QUESTION, "?")
    taken = 1 if codec is None else len(codec.encode(text))
    if taken + draw.max_tokens > engine.max_model_len:
        raise ConfigError(
            explain(
                f"{field} does not fit into engine.max_model_len={engine.max_model_len}",
                got=draw.max_tokens,
                expected=f"at most {engine.max_model_len - taken}, as the prompt takes {taken} "
                "tokens or more",
                remedy="lower the one or raise the other",
            )
        )


def _longest_sequences(recipe: Still2Recipe) -> dict[str, int]:
    """Tokens of the longest sequence that the model is given somewhere, by the field that says
    so."""
    found = {
        "sft.max_length": recipe.sft.max_length,
        "engine.max_model_len": recipe.engine.max_model_len,
    }
    if recipe.rounds and recipe.self_improve.method == "dpo":
        found["self_improve.dpo.max_length"] = recipe.self_improve.dpo.max_length
    return found


def check_positions(field: str, length: int, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse sequences longer than the model was made for; scaled positions are the user's.

    Args:
        field: of the recipe, that says how long they may be.
        length: its value, in tokens.
        folder: of the model.
        config: the fields of its `config.json`.

    Raises:
        ConfigError: the model has fewer positions.
    """
    positions = config.get("max_position_embeddings")
    scaled = '"factor"' in json.dumps([config.get("rope_scaling"), config.get("rope_parameters")])
    if isinstance(positions, int) and not scaled and length > positions:
        raise ConfigError(
            explain(
                f"{field} is beyond the positions of the model {folder}",
                got=length,
                expected=f"at most {positions} (max_position_embeddings)",
                remedy=f"lower {field}, or scale the positions in config.json",
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
        ConfigError: a folder that is no loadable model, or can not be read.
    """
    from still_core.train.model_folder import check_model_folder

    folder = local_folder(model)
    if folder is None:
        return {"hub": model}
    check_model_folder(folder)
    try:
        return {p.name: file_digest(p) for p in sorted(folder.iterdir()) if p.is_file()}
    except OSError as error:
        raise ConfigError(
            explain(
                f"can not read the model file {error.filename}: {error.strerror}",
                remedy="make it readable, or fix the path in the recipe",
            )
        ) from None


def local_folder(model: str) -> Path | None:
    """The folder of a model that lies on this machine; None for a hub name.

    Raises:
        ConfigError: a path where no folder is.
    """
    if model == "miniature":
        from still_core.miniature import backbone_directory

        return backbone_directory()
    folder = Path(model).expanduser()
    if os.path.isdir(folder):  # `Path.is_dir` raises at a name that is too long
        return folder
    if model.startswith((".", "/", "~")):
        raise ConfigError(
            explain("no model folder there", got=model, remedy="fix the path in the recipe")
        )
    return None


def fingerprint_teachers(distil: DistilRecipe) -> dict[str, dict[str, str]]:
    """Digests of the local teachers' files, by teacher's source."""
    return {source: fingerprint_model(source) for source in distil.local_models()}


def file_digest(path: Path) -> str:
    """sha256 of the content; of size and time for files beyond `BIG_FILE`."""
    found = path.stat()
    if found.st_size >= BIG_FILE:
        return hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
