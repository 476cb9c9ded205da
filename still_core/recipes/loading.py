"""Recipes by name or file, with `key=value` changes. Light: pydantic and YAML only.

preset name | YAML or JSON file -> changes applied -> validated, frozen recipe
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os.path import isfile
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from still_core.errors import ConfigError, explain
from still_core.recipes.presets import PRESET_RESOURCES, PRESETS
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.recipes.section import Section

S = TypeVar("S", bound=Section)


def load_recipe(name_or_file: str, changes: Iterable[str] = ()) -> Still2Recipe:
    """The recipe of that preset name or YAML/JSON file, with `section.key=value` changes applied.

    A file may name the preset it starts from (`base: miniature`) and give only what differs. Its
    `resources`, if it has any, are no part of the recipe: `load_resources` reads them.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, wrong type or range.
    """
    preset, tree = _preset_and_changes(name_or_file)
    tree.pop("resources", None)
    if preset:
        tree = _merged(PRESETS[preset]().model_dump(mode="json"), tree)
    changes = tuple(changes)
    if changes:
        # Every field can be changed, also those that the file leaves at their defaults.
        tree = validated(tree, origin=name_or_file).model_dump(mode="json")
    for change in changes:
        _apply(tree, change, option="--set", example="rounds=3")
    return validated(tree, origin=name_or_file)


def validated(tree: Mapping[str, Any], *, origin: str) -> Still2Recipe:
    """The tree as a recipe; every fault in one line.

    Raises:
        ConfigError: unknown key, wrong type or range.
    """
    return checked(Still2Recipe, tree, origin=f"recipe {origin}")


def checked(model: type[S], tree: Mapping[str, Any], *, origin: str) -> S:
    """The tree as that section; every fault in one line.

    Args:
        model: the section.
        tree: its fields.
        origin: whence they are, for the line.

    Raises:
        ConfigError: unknown key, wrong type or range.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = [_fault_text(fault) for fault in error.errors(include_url=False)]
        raise ConfigError(explain(f"{origin} is not valid: " + "; ".join(faults))) from None


def _fault_text(fault: Mapping[str, Any]) -> str:
    """One fault in words: the place, what is wrong, what was given."""
    place = ".".join(str(part) for part in fault["loc"])
    prefix = f"{place}: " if place else ""
    ours = fault.get("ctx", {}).get("error")
    if isinstance(ours, ConfigError):
        return f"{prefix}{ours}"
    if fault["type"] == "extra_forbidden":
        return f"{prefix}unknown key"
    got = "" if fault["type"] == "missing" else f" (got {fault['input']!r:.80})"
    return f"{prefix}{fault['msg']}{got}"


def _preset_and_changes(name_or_file: str) -> tuple[str, dict[str, Any]]:
    """The preset that is meant or that the file starts from ("": none), and what the file says."""
    if name_or_file in PRESETS:
        return name_or_file, {}
    path = Path(name_or_file)
    if not isfile(path):
        raise ConfigError(
            explain(
                "unknown recipe",
                got=str(path),
                expected=f"a preset ({', '.join(PRESETS)}) or a YAML or JSON file",
                remedy="fix --recipe",
            )
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(explain(f"recipe file {path} is not YAML or JSON: {error}")) from None
    except OSError as error:
        raise ConfigError(
            explain(f"can not read the recipe file {path}: {error.strerror}")
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(
            explain(f"recipe file {path}", got=type(tree).__name__, expected="a mapping of keys")
        )
    base = str(tree.pop("base", None) or "")
    if base and base not in PRESETS:
        raise ConfigError(
            explain(
                f"base in {path}", got=base, expected=", ".join(PRESETS), remedy="name a preset"
            )
        )
    return base, tree


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the changes on top; mappings merge key by key, everything else replaces."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = (
            _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
        )
    return merged


def _apply(tree: dict[str, Any], change: str, *, option: str, example: str) -> None:
    path, separator, text = change.partition("=")
    if not separator:
        raise ConfigError(
            explain(option, got=change, expected="key=value", remedy=f"e.g. {option} {example}")
        )
    *sections, key = path.strip().split(".")
    node: Any = tree
    for section in sections:
        node = _child(node, section, f"{option} {path}")
    if isinstance(node, list):
        _child(node, key, f"{option} {path}")
        node[int(key)] = _value(text)
    elif isinstance(node, dict) and key in node:
        node[key] = _value(text)
    else:
        known = ", ".join(node) if isinstance(node, dict) else "a section"
        raise ConfigError(explain(f"{option} {path}", got=key, expected=f"one of {known}"))


def _child(node: Any, name: str, where: str) -> Any:
    if isinstance(node, dict) and name in node:
        return node[name]
    if isinstance(node, list) and name.isdigit() and int(name) < len(node):
        return node[int(name)]
    known = (
        ", ".join(node)
        if isinstance(node, dict)
        else f"0..{len(node) - 1}"
        if isinstance(node, list)
        else "no keys"
    )
    raise ConfigError(explain(where, got=name, expected=f"one of {known}"))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def load_resources(recipe: str, changes: Iterable[str] = ()) -> Resources:
    """What a recipe is planned to run on, with `section.key=value` changes.

    A preset has its own, one machine's where it names none; a file has those of its base with its
    own section `resources` on top.

    Raises:
        ConfigError: unknown recipe, unknown key, wrong type or range.
    """
    preset, tree = _preset_and_changes(recipe)
    own = tree.get("resources") or {}
    if not isinstance(own, dict):
        raise ConfigError(
            explain(
                f"resources in {recipe}",
                got=type(own).__name__,
                expected="a mapping of keys",
                remedy="e.g. resources: {train: {num_ranks: 8}}",
            )
        )
    resources = _merged(PRESET_RESOURCES.get(preset, Resources)().model_dump(mode="json"), own)
    origin = f"resources of {recipe}"
    changes = tuple(changes)
    if changes:
        resources = checked(Resources, resources, origin=origin).model_dump(mode="json")
    for change in changes:
        _apply(resources, change, option="--resource", example="rollout.num_actors=4")
    return checked(Resources, resources, origin=origin)
