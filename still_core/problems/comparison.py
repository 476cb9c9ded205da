"""Decontamination from files: `still data decontaminate`.

NAME=FILE -> problems by benchmark; training file or rows -> problems -> OverlapReport -> JSONL
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from still_core.errors import ConfigError, DataError, explain
from still_core.problems.collect import collect
from still_core.problems.decontaminate import OverlapReport
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.problems.recipe import SourceSpec
from still_core.problems.sources import ADAPTERS


def parse_benchmarks(pairs: Iterable[str]) -> dict[str, list[Problem]]:
    """Problems by benchmark from `NAME=FILE` pairs.

    Raises:
        ConfigError: a pair of another form, or a name given twice.
        DataError: a file without a readable problem.
    """
    benchmarks: dict[str, list[Problem]] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path) or name in benchmarks:
            raise ConfigError(
                explain("--benchmarks", got=pair, expected="NAME=FILE, each name once")
            )
        benchmarks[name] = read_statements(name, path)
    return benchmarks


def read_statements(name: str, path: str) -> list[Problem]:
    """Problems of one file: by the adapter of that name, else by the usual names of fields.

    Raises:
        DataError: malformed rows, or no problem at all: what is not read is not compared.
    """
    adapter = name if name in ADAPTERS and name != "generic" else "any"
    found = collect([SourceSpec(name=name, adapter=adapter, path=path)])
    if found.quarantined or not found.problems:
        first = found.quarantined[0] if found.quarantined else None
        place = f"{first.file}:{first.line} {first.reason} {first.detail}" if first else "no rows"
        raise DataError(
            explain(f"{len(found.quarantined)} rows of {path} can not be compared", got=place)
        )
    return found.problems


def problems_of_rows(rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """The problems of a published data set's demonstrations, each once."""
    seen: dict[str, Problem] = {}
    for number, row in enumerate(rows):
        seen.setdefault(
            row["problem_digest"],
            Problem(
                id=row["problem_id"],
                statement=row["statement"],
                gold=row["gold"],
                kind=AnswerKind(row["kind"]),
                domain=row["domain"],
                bucket=Bucket(row["bucket"]),
                source="data set",
                row=number,
            ),
        )
    return list(seen.values())


def write_overlaps(report: OverlapReport, path: Path) -> None:
    """One JSON line per overlap, in the order of the training problems."""
    lines = [json.dumps(one.to_row(), ensure_ascii=False) for one in report.overlaps]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
