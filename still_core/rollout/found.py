"""What an exploration found, as an artefact: groups, attempts, the selected rollouts.

pool, earlier explorations -> this round's problems -> explore -> publish -> read
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from still_core.errors import MissingError, explain
from still_core.problems.pool import Draw, PoolRecipe, draw_round
from still_core.problems.problem import Problem
from still_core.rollout.bank import RolloutBank
from still_core.rollout.explore import Exploration
from still_core.rollout.rollout import Rollout
from still_core.store import Handle, Store
from still_core.store.bundle import publish_tables, read_rows_of
from still_core.verify.verdict import Outcome

_CHUNK = 256
"""Rollouts read from the bank at a time: whole, each takes half a megabyte for 8,000 tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One round's exploration, read from the store."""

    round: int
    groups: list[dict[str, Any]]
    """One row per problem: attempts, outcomes, selected rollout."""
    attempts: list[dict[str, Any]]
    """Pass rate by attempt number."""
    samples: list[dict[str, Any]]
    """The selected rollouts, without token ids and log-probs."""


def draw_problems(
    store: Store,
    problems: Sequence[Problem],
    recipe: PoolRecipe,
    explorations: Sequence[Handle],
    *,
    seed: int,
) -> Draw:
    """This round's problems, given what earlier rounds tried and solved."""
    groups = [row for handle in explorations for row in read_rows_of(store, handle, "groups")]
    return draw_round(
        problems,
        recipe,
        tried={row["problem_digest"] for row in groups},
        solved={row["problem_digest"] for row in groups if row["solved"]},
        seed=seed,
    )


def publish_exploration(
    store: Store, name: str, version: str, exploration: Exploration, *, round: int, left: int
) -> Handle:
    """Publish the result; what it cost this time is no part of it."""
    tables = {
        "groups": exploration.to_rows(),
        "attempts": exploration.attempt_rows(),
        "selected": map(_row, exploration.selected),
    }
    meta = {
        **exploration.summary(),
        "unsolved": len(exploration.unsolved),
        "left": left,
        "round": round,
        "outcomes": exploration.outcomes(),
    }
    return publish_tables(store, name, version, tables, meta=meta)


def _row(rollout: Rollout) -> dict[str, Any]:
    """As `to_row`, without a Python object per token."""
    import numpy as np

    row = replace(rollout, token_ids=(), logprobs=()).to_row()
    # Where no rollout has any, the column has no type.
    if rollout.token_ids:
        row["token_ids"] = np.asarray(rollout.token_ids, np.int64)
    if rollout.logprobs:
        row["logprobs"] = np.asarray(rollout.logprobs, np.float64)
    return row


def read_exploration(store: Store, handle: Handle) -> Found:
    """The exploration behind the handle."""
    return Found(
        round=int(store.manifest(handle).meta["round"]),
        groups=read_rows_of(store, handle, "groups"),
        attempts=read_rows_of(store, handle, "attempts"),
        samples=_selected(store, handle),
    )


def read_selected(store: Store, handle: Handle, *, logprobs: bool) -> list[Rollout]:
    """The selected rollouts without token ids, with log-probs where they are asked for."""
    rows = _selected(store, handle, *(["logprobs"] if logprobs else []))
    return [Rollout.from_row({"token_ids": (), "logprobs": (), **row}) for row in rows]


def _selected(store: Store, handle: Handle, *heavy: str) -> list[dict[str, Any]]:
    names = [name for name in Rollout.__dataclass_fields__ if name not in ("token_ids", "logprobs")]
    return read_rows_of(store, handle, "selected", columns=[*names, *heavy])


def read_siblings(store: Store, handle: Handle) -> tuple[list[Rollout], dict[str, int]]:
    """Correct and wrong attempts at the problems that have both, from the bank.

    The verdicts are the exploration's own, so that regrading the bank changes no finished round.
    Token ids and log-probs are left out.

    Returns:
        The rollouts, and how many attempts were left out by reason.

    Raises:
        MissingError: the bank has lost one of them.
    """
    wanted: dict[str, str] = {}
    lost: Counter[str] = Counter()
    for row in read_rows_of(store, handle, "groups"):
        judged = {
            name: outcome
            for name, outcome in zip(row["rollout_ids"], row["outcomes"], strict=True)
            if Outcome(outcome).is_judged()
        }
        lost["not_judged"] += len(row["rollout_ids"]) - len(judged)
        solved = Outcome.CORRECT in judged.values()
        if solved and len(set(judged.values())) > 1:
            wanted |= judged
        else:
            lost["only_correct" if solved else "only_wrong"] += len(judged)
    found = {
        rollout.id: replace(rollout, outcome=wanted[rollout.id], token_ids=(), logprobs=())
        for rollout in _in_chunks(RolloutBank(store), list(wanted))
    }
    for name in wanted:
        if name not in found:
            raise MissingError(
                explain(
                    "the bank lacks a rollout of the exploration",
                    got=name,
                    remedy=f"delete manifests/{handle.name}/{handle.version}.json to explore again",
                )
            )
    return list(found.values()), dict(lost)


def _in_chunks(bank: RolloutBank, ids: Sequence[str]) -> Iterator[Rollout]:
    """What the bank has of these, in their order."""
    for start in range(0, len(ids), _CHUNK):
        yield from bank.get(ids[start : start + _CHUNK]).values()


def solved_by_level(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Problems, solved ones and attempts by domain and level."""
    keys = [(row["domain"], row["level"] if row["level"] is not None else -1.0) for row in groups]
    tried, solved, attempts = Counter(keys), Counter[Any](), Counter[Any]()
    for key, row in zip(keys, groups, strict=True):
        solved[key] += bool(row["solved"])
        attempts[key] += row["attempts"]
    return [
        {
            "domain": domain,
            "level": None if level < 0 else level,
            "problems": tried[domain, level],
            "solved": solved[domain, level],
            "attempts": attempts[domain, level],
        }
        for domain, level in sorted(tried)
    ]
