"""How rollouts and verdicts stand in the bank's shards: columns, types, and what can be stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from still_core.errors import DataError, explain
from still_core.rollout.rollout import FinishReason, Rollout

if TYPE_CHECKING:
    import pyarrow as pa

    from still_core.verify.verdict import Verdict

HEAVY_COLUMNS = ("text", "token_ids", "logprobs")
LIGHT_COLUMNS = (
    "id",
    "problem_id",
    "problem_digest",
    "policy_digest",
    "policy_version",
    "engine_build",
    "sample_index",
    "finish_reason",
    "num_tokens",
    "outcome",
    "extracted",
    "rule",
    "verifier_version",
)
"""What the index keeps in memory, about 300 bytes a rollout."""

VERDICT_COLUMNS = ("id", "outcome", "extracted", "rule", "verifier_version")


_BITS = {"policy_version": 32, "sample_index": 32, "seed": 64}
_MENDED = ("text", "extracted")
"""Columns in which `storable` replaces what is no UTF-8."""


def check_storable(rollout: Rollout) -> None:
    """Raise DataError for a rollout that no shard can hold: the others beside it must not suffer.

    It has no id, log-probs that do not fit its tokens, or a value that does not fit its column.
    """
    if not rollout.id:
        raise DataError(explain("a rollout without an id can not be banked"))
    if len(rollout.logprobs) not in (0, len(rollout.token_ids)):
        expected = f"{len(rollout.token_ids)}, one per token"
        what = f"rollout {rollout.id}: number of log-probs"
        raise DataError(explain(what, got=len(rollout.logprobs), expected=expected))
    for name in Rollout.__dataclass_fields__:
        value = getattr(rollout, name)
        try:
            _check_fits(name, value)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            what = f"rollout {rollout.id}: {name} can not be stored ({error})"
            raise DataError(explain(what, got=value)) from error


def _check_fits(name: str, value: Any) -> None:
    """Raise what the conversion to the column's type would raise."""
    import numpy as np

    if name in ("token_ids", "logprobs"):
        kind = np.int32 if name == "token_ids" else np.float32
        np.fromiter(value, kind, len(value))
    elif name in _BITS:
        if not -(2 ** (_BITS[name] - 1)) <= value < 2 ** (_BITS[name] - 1):
            raise OverflowError(f"not within {_BITS[name]} bits")
    elif name not in _MENDED:
        value.encode()


def storable(rollout: Rollout) -> Rollout:
    """The rollout as the bank gives it back; what is storable already stays as it is.

    Lone surrogates are no UTF-8: they become U+FFFD, the token ids keep the truth. Log-probs are
    float32.
    """
    import numpy as np

    text, extracted = _well_formed(rollout.text), rollout.extracted
    if extracted is not None:
        extracted = _well_formed(extracted)
    logprobs = tuple(np.asarray(rollout.logprobs, np.float32).tolist())
    return replace(rollout, text=text, extracted=extracted, logprobs=logprobs)


def _well_formed(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """The columns of a rollout that a verdict fills."""
    return {
        "outcome": str(verdict.outcome),
        "extracted": verdict.extracted,
        "rule": verdict.rule,
        "verifier_version": verdict.verifier_version,
    }


def differs(rollout: Rollout, verdict: Verdict) -> bool:
    """Whether the verdict says something else than the rollout's own."""
    return any(getattr(rollout, name) != value for name, value in verdict_row(verdict).items())


def rollout_columns(rollouts: Sequence[Rollout]) -> dict[str, pa.Array]:
    """Typed columns of rollouts, without a Python object per token."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for field in rollout_schema():
        if field.name == "num_tokens":
            values: list[Any] = [len(rollout.token_ids) for rollout in rollouts]
        else:
            values = [getattr(rollout, field.name) for rollout in rollouts]
        nested = pa.types.is_list(field.type)
        columns[field.name] = _lists(values, field.type) if nested else pa.array(values, field.type)
    return columns


LATER_COLUMNS = ("tools",)
"""Not in shards that were written before the columns were."""


def with_all_columns(table: pa.Table) -> pa.Table:
    """The table with `LATER_COLUMNS`: a shard without `tools` was drawn without any."""
    import pyarrow as pa

    if "tools" in table.column_names:
        return table
    whole = table.append_column("tools", pa.array([""] * len(table), pa.string()))
    return whole.select(rollout_schema().names)


def rollouts_of(table: pa.Table) -> list[Rollout]:
    """The inverse of `rollout_columns`, without a conversion per token."""
    columns = _python_columns(table, list(Rollout.__dataclass_fields__))
    columns["finish_reason"] = [FinishReason(value) for value in columns["finish_reason"]]
    rows = zip(*columns.values(), strict=True)
    return [Rollout(**dict(zip(columns, row, strict=True))) for row in rows]


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Plain rows of a table of rollouts, for people: `Rollout.to_row` and the number of tokens."""
    columns = _python_columns(table, rollout_schema().names)
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _python_columns(table: pa.Table, names: list[str]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name in names:
        column = table[name].combine_chunks()
        columns[name] = _tuples(column) if name in ("token_ids", "logprobs") else column.to_pylist()
    return columns


def _tuples(column: pa.ListArray) -> list[tuple[Any, ...]]:
    flat = column.values.to_numpy(zero_copy_only=False).tolist()
    bounds = column.offsets.to_pylist()
    return [tuple(flat[a:b]) for a, b in pairwise(bounds)]


def _lists(values: list[tuple[float, ...]], kind: pa.DataType) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(values), kind.value_type.to_pandas_dtype(), offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


def columns_of(rows: list[dict[str, Any]], schema: pa.Schema) -> dict[str, pa.Array]:
    """Typed columns of rows."""
    import pyarrow as pa

    return {field.name: pa.array([row[field.name] for row in rows], field.type) for field in schema}


def rollout_schema() -> pa.Schema:
    """Column types of a shard of rollouts."""
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = {
        "policy_version": pa.int32(),
        "sample_index": pa.int32(),
        "num_tokens": pa.int32(),
        "seed": pa.int64(),
        "token_ids": pa.list_(pa.int32()),
        "logprobs": pa.list_(pa.float32()),
    }
    names = [*Rollout.__dataclass_fields__, "num_tokens"]
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def verdict_schema() -> pa.Schema:
    """Column types of a shard of verdicts."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in VERDICT_COLUMNS])
