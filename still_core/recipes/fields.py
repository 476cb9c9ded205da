"""Every field of a recipe and of its resources, as the models declare them.

models -> JSON schema -> one row a field -> `still recipe fields`, docs/reference/recipe-fields.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from still_core.errors import ConfigError, explain
from still_core.recipes.recipe import Resources, Still2Recipe

Schema = Mapping[str, Any]

HEAD = """\
# Every field of a recipe

`still recipe fields` prints this page, and `still recipe fields sft` a part of it. `[]` stands for
each element of a list; `--set` counts them from 0: `--set problems.sources.0.limit=40`. Fields of
`resources` are no part of a recipe's identity: a file holds them in its section `resources`, and
`--resource rollout.num_actors=4` changes one. A field without a default has to be given.
"""

_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minItems": "at least",
}
_CHOICE = re.compile(r"\^\(([\w|]+)\)\$")
"""A pattern that lists whole words."""
_WORDS = {"string": "text", "boolean": "true or false", "null": "null"}


class Field(NamedTuple):
    """One field that can be set."""

    place: str
    """Dotted path, `[]` for each element of a list."""
    kind: str
    """Type and range."""
    default: str
    """As JSON; "" where the field has to be given."""
    description: str


def recipe_fields(prefix: str = "") -> list[Field]:
    """The fields whose path begins with `prefix`, in the order of declaration.

    Raises:
        ConfigError: no field is of that name or in a section of that name.
    """
    found = [*_fields_of(Still2Recipe, ""), *_fields_of(Resources, "resources.")]
    below = (f"{prefix}.", f"{prefix}[]")
    kept = [one for one in found if prefix in ("", one.place) or one.place.startswith(below)]
    if not kept:
        sections = dict.fromkeys(one.place.partition(".")[0] for one in found)
        raise ConfigError(
            explain(
                "no field of a recipe has this name",
                got=prefix,
                expected=f"one of {', '.join(sections)}, or a path below",
            )
        )
    return kept


def fields_page(prefix: str = "") -> str:
    """The fields as Markdown: with a head where they are all, else one table."""
    table = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for place, kind, default, description in recipe_fields(prefix):
        value = f"`{_cell(default)}`" if default else ""
        table.append(f"| `{place}` | {_cell(kind)} | {value} | {_cell(description)} |")
    return "\n".join([*([] if prefix else [HEAD]), *table]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


class _WithFactories(GenerateJsonSchema):
    """Pydantic leaves out what a factory makes; here it is a default like any other."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Any = schema.get("default_factory")
        return super().get_default_value(schema) if factory is None else factory()


def _fields_of(model: type[Still2Recipe | Resources], prefix: str) -> Iterator[Field]:
    schema = model.model_json_schema(schema_generator=_WithFactories)
    yield from _below(schema, schema.get("$defs", {}), prefix)


def _below(section: Schema, named: Schema, prefix: str) -> Iterator[Field]:
    for name, schema in section["properties"].items():
        inner, place = _resolved(schema, named), prefix + name
        items = _resolved(inner.get("items", {}), named)
        if "properties" in inner:
            yield from _below(inner, named, f"{place}.")
        elif "properties" in items:
            yield from _below(items, named, f"{place}[].")
        else:
            default = schema.get("default")
            text = json.dumps(default, ensure_ascii=False) if "default" in schema else ""
            yield Field(place, _kind(schema, named), text, schema.get("description", ""))


def _resolved(schema: Schema, named: Schema) -> Schema:
    """The definition that a schema refers to, or the schema itself."""
    reference = schema.get("$ref", "")
    return named[reference.rpartition("/")[2]] if reference else schema


def _kind(schema: Schema, named: Schema) -> str:
    """A type and its range in a few words."""
    schema = _resolved(schema, named)
    if "anyOf" in schema:
        return " or ".join(_kind(one, named) for one in schema["anyOf"])
    listed = _CHOICE.fullmatch(schema.get("pattern", ""))
    if choices := schema.get("enum") or (listed and listed[1].split("|")):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind: str = schema.get("type", "")
    words = _WORDS.get(kind, kind)
    if kind == "array":
        words = f"list of {_kind(schema['items'], named)}"
    elif kind == "object":
        words = f"mapping of names to {_kind(schema['additionalProperties'], named)}"
    if "pattern" in schema:
        words += f" like `{schema['pattern']}`"
    bounds = [f"{word} {_number(schema[key])}" for key, word in _BOUNDS.items() if key in schema]
    return " ".join([words, ", ".join(bounds)]).strip()


def _number(bound: float) -> str:
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"
