"""Looking into a published data set: its funnels, its rows, and what became of any row of a source.

data set's URI -> find_dataset -> read_funnels, responses_of, describe_row
"""

from __future__ import annotations

from typing import Any

from still_core.distil.dataset import read_demonstrations
from still_core.distil.preferences import read_pairs
from still_core.errors import DataError, MissingError, explain
from still_core.refine.clean import Refined
from still_core.refine.funnel import Funnel
from still_core.refine.lineage import dropped_from_rows, trace
from still_core.responses.response import Demonstration
from still_core.store.bundle import read_rows_of
from still_core.store.handle import Handle
from still_core.store.store import Store

FUNNELS = {
    "funnel_problems": "problems: from rows read",
    "funnel_responses": "responses: from what teachers wrote",
    "funnel": "demonstrations: from complete responses",
}
"""Funnel tables of a data set, in the order of the work."""


def find_dataset(uri: str) -> tuple[Store, Handle]:
    """The data set behind a manifest's URI, or the newest one in a store.

    Raises:
        MissingError: there is none.
    """
    root, marker, rest = uri.partition("/manifests/")
    store = Store(root)
    if marker:
        name, _, version = rest.removesuffix(".json").rpartition("/")
        found = store.find(name, version)
    else:
        named = [one for one in store.manifests("") if "data.parquet" in one.objects]
        tables = ("funnel.parquet", "dropped.parquet")
        sets = [one for one in named if all(table in one.objects for table in tables)]
        sets = [one for one in sets if one.meta.get("method") != "dpo"]
        newest = max(sets, key=lambda one: str(one.created_at), default=None)
        found = store.find(newest.name, newest.version) if newest else None
    if found is None:
        raise MissingError(
            explain(
                "no data set there", got=uri, remedy="give the URI that `still data build` said"
            )
        )
    return store, found


def read_funnels(store: Store, handle: Handle) -> dict[str, Funnel]:
    """The data set's funnels by title, in the order of the work."""
    objects = store.manifest(handle).objects
    return {
        title: Funnel.from_rows(read_rows_of(store, handle, table))
        for table, title in FUNNELS.items()
        if f"{table}.parquet" in objects
    }


def responses_of(store: Store, handle: Handle) -> list[Demonstration]:
    """The demonstrations of a data set; of pairs for DPO, both sides, chosen first."""
    if store.manifest(handle).meta.get("method") != "dpo":
        return read_demonstrations(store, handle)
    return [row for pair in read_pairs(store, handle) for row in (pair.chosen, pair.rejected)]


def describe_row(store: Store, handle: Handle, row: str) -> str:
    """What became of one row: its text, where it comes from, and the rules it passed or failed.

    Args:
        store: holds the data set.
        handle: the data set.
        row: number of a demonstration in it, or the id of a demonstration, response or problem.
    Raises:
        DataError: nothing in the data set has that number or id.
    """
    kept = responses_of(store, handle)
    row_id = kept[int(row)].id if row.isdigit() and int(row) < len(kept) else row
    dropped = dropped_from_rows(read_rows_of(store, handle, "dropped"))
    found = {one.id: one for one in (*kept, *(one.row for one in dropped))}
    if row_id in found:
        one = found[row_id]
        refined = Refined(kept=kept, dropped=dropped, funnel=Funnel())
        rules = store.manifest(handle).meta.get("rules", [])
        history = trace(row_id, refined, rules).to_text()
        body = [f"statement     {one.statement}", f"gold          {one.gold}"]
        texts = ["", "thought", one.thought, "", "solution", one.solution]
        return "\n".join([history, *body, *texts])
    return _describe_left_out(store, handle, row_id)


LEFT_OUT = ("unfinished", "drafts", "dropped_problems", "dropped", "left_out", "quarantined")
"""Tables of what became no demonstration: of a data set, and of the stages of a run before it."""


def _describe_left_out(store: Store, handle: Handle, row_id: str) -> str:
    """A response, problem or row of a source that became no demonstration, and why.

    It is searched in the data set, then in all of the store, newest first: in a run, what a stage
    dropped stands with that stage. `source/row#2` is the second response of a row; where it was
    never looked at, its problem's fate is its own.
    """
    newest = sorted(store.manifests(""), key=lambda one: str(one.created_at), reverse=True)
    places = [(handle, store.manifest(handle).objects)]
    for one in newest:
        found = store.find(one.name, one.version)
        if found is not None and found != handle:
            places.append((found, one.objects))
    for wanted in dict.fromkeys((row_id, row_id.split("#", 1)[0])):
        for where, objects in places:
            for table in LEFT_OUT:
                if f"{table}.parquet" not in objects:
                    continue
                for row in read_rows_of(store, where, table):
                    if wanted in _names_of(row):
                        return _fate(where, table, row)
    raise DataError(
        explain("no such row", got=row_id, remedy="give a row number, or an id from the tables")
    )


def _names_of(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row of a table may be called."""
    own = next((row[key] for key in ("response", "id", "problem") if row.get(key)), "")
    place = f"{row['file']}:{row['line']}" if "line" in row else ""
    return str(own), place


def _fate(where: Handle, table: str, row: dict[str, Any]) -> str:
    """Its columns, short ones first; the problem's own are left to the problem."""
    shown = {name: value for name, value in row.items() if not name.startswith("problem_")}
    texts = {name: shown.pop(name) for name in ("text", "reasoning", "thought", "solution")
             if name in shown}  # fmt: skip
    lines = [f"{'table':<18}{table} of {where.name} {where.version}"]
    lines += [f"{name:<18}{value}" for name, value in shown.items() if value not in ("", None)]
    for name, value in texts.items():
        lines += ["", name, str(value)] if value else []
    return "\n".join(lines)
