"""The rollout bank: every rollout that was ever drawn, across runs, kept once by its identity.

append -> buffer -> shard (durable within `flush_s`) -> index by id -> get, scan, stats, export

A shard is immutable and names its own sha256; writers share nothing, so any number may append at
once. Readers index the light columns of each shard once per process, and decode texts and tokens
only for what is asked. Verdicts of a later verifier are appended beside the rollouts and win over
the old ones.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from still_core.errors import CorruptionError, DataError, MissingError, StoreError, explain
from still_core.problems.problem import Problem
from still_core.rollout.bank_rows import (
    HEAVY_COLUMNS,
    LATER_COLUMNS,
    LIGHT_COLUMNS,
    VERDICT_COLUMNS,
    columns_of,
    differs,
    rollouts_of,
    verdict_row,
    verdict_schema,
    with_all_columns,
)
from still_core.rollout.bank_writer import FLUSH_S, BankWriter
from still_core.rollout.rollout import Rollout
from still_core.store.garbage import MIN_AGE_S
from still_core.store.handle import Handle
from still_core.store.shardlog import ROWS_PER_GROUP, Shard, ShardLog, ShardWriter
from still_core.store.store import Store
from still_core.store.tables import decode_table, open_table

if TYPE_CHECKING:
    import pyarrow as pa

    from still_core.verify.verdict import Verdict

log = logging.getLogger(__name__)

PACK_BYTES = 64 * 2**20
"""Shards are merged until one is about this big."""
PACKING_TTL_S = 30.0
ROWS_PER_BATCH = 4 * ROWS_PER_GROUP
"""Rollouts decoded together by a scan: bounds its memory."""
_SOURCE_COLUMNS = [
    f"{which}{column}"
    for which in ("", "chosen_", "rejected_")
    for column in ("source_row", "solution_rollout_id")
]
VANISHED_RETRIES = 5
"""How often a reader looks again after shards were merged under its hands."""


class BatchVerifier(Protocol):
    """Judges answers (`still_core.verify.VerifierPool`)."""

    def verify_many(self, answers: Any) -> list[Verdict]:
        """Verdicts in input order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which rollouts; None does not restrict."""

    problem: str | None = None
    """Problem id or digest."""
    policy: str | None = None
    """Policy digest, or its first digits."""
    outcome: str | None = None
    round: int | None = None
    """t of the policy M_t that drew it: 0 is the backbone, -1 a model that is no M_t."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a light row passes."""
        return (
            (self.problem is None or self.problem in (row["problem_id"], row["problem_digest"]))
            and (self.policy is None or str(row["policy_digest"]).startswith(self.policy))
            and (self.outcome is None or row["outcome"] == self.outcome)
            and (self.round is None or row["policy_version"] == self.round)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyStats:
    """What one policy drew."""

    policy_digest: str
    policy_version: int
    rollouts: int
    problems: int
    problems_solved: int
    """With at least one correct rollout."""
    tokens: int
    outcomes: dict[str, int]

    @property
    def pass_rate(self) -> float:
        """Correct rollouts over all, in [0, 1]."""
        return self.outcomes.get("correct", 0) / self.rollouts if self.rollouts else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BankStats:
    """What the bank holds."""

    rollouts: int
    tokens: int
    problems: int
    shards: int
    num_bytes: int
    damaged: tuple[str, ...]
    """File names of shards that do not fit their checksum."""
    policies: tuple[PolicyStats, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BankGarbage:
    """What a collection did, or would do."""

    merged: tuple[str, ...]
    """Small shards whose rows move into packs."""
    packs: int
    """Packs that they become."""
    duplicates: int
    """Rows dropped because another row has their id."""
    quarantined: tuple[str, ...]
    """Damaged shards moved aside."""
    orphans: tuple[str, ...]
    """Files of light columns whose shard is gone."""
    removed: bool
    """False for a dry run."""

    def lines(self) -> list[str]:
        """One line per thing, for people."""
        verb = "merged" if self.removed else "would merge"
        aside = "set aside" if self.removed else "would set aside"
        swept = "removed" if self.removed else "would remove"
        return [
            *(f"{verb} {name}" for name in self.merged),
            *(f"{aside} {name}, which is damaged" for name in self.quarantined),
            *(f"{swept} {key}" for key in self.orphans),
            f"{len(self.merged)} shards into {self.packs}, {self.duplicates} duplicate rows",
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Regrading:
    """What a later verifier said: in = unchanged + changed + unknown_problem + lost."""

    num_in: int
    unchanged: int
    changed: dict[str, int]
    """Counts by `old -> new`."""
    unknown_problem: int
    """Rollouts whose gold answer is not at hand."""
    lost: int
    """Rollouts whose shard turned out damaged."""


class RolloutBank:
    """The global pool of rollouts of one store. Safe to share between threads, picklable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rollouts = ShardLog(
            store,
            "bank/rollouts",
            columns={*Rollout.__dataclass_fields__, "num_tokens"}.difference(LATER_COLUMNS),
            light=LIGHT_COLUMNS,
            complete=with_all_columns,
        )
        self._verdicts = ShardLog(store, "bank/verdicts", columns=VERDICT_COLUMNS)
        self._index = _Index()
        self._judged: dict[str, dict[str, Any]] = {}
        self._judged_in: dict[str, str] = {}
        self._judged_shards: set[str] = set()
        self._lost: set[str] = set()
        self._told_damaged: set[str] = set()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RolloutBank, (self._store,)

    def get(self, ids: Iterable[str]) -> dict[str, Rollout]:
        """The rollouts with these ids, as far as the bank has them, in the order asked.

        Looks for new shards only when an id is not known yet.
        """
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            if any(name not in self._index.places for name in wanted):
                self.refresh()
            tables = list(self._load(wanted))
        found = {rollout.id: rollout for table in tables for rollout in rollouts_of(table)}
        return {name: found[name] for name in wanted if name in found}

    def writer(self, *, owner: str, flush_s: float = FLUSH_S) -> BankWriter:
        """An append-only writer, as context manager; any number may be open at once.

        Args:
            owner: who writes, for people, e.g. `run/actor`.
            flush_s: an appended rollout is durable after at most so many seconds.
        """
        return BankWriter(self.holds, self._rollouts, owner=owner, flush_s=flush_s)

    def scan(
        self,
        *,
        problem: str | None = None,
        policy: str | None = None,
        outcome: str | None = None,
        round: int | None = None,
    ) -> Iterator[Rollout]:
        """All rollouts that pass the filter, each id once, oldest first; see `Filter`."""
        asked = Filter(problem=problem, policy=policy, outcome=outcome, round=round)
        for table in self._batches(asked):
            yield from rollouts_of(table)

    def rows(self, asked: Filter | None = None) -> list[dict[str, Any]]:
        """Light rows (no text, no tokens) that pass the filter, oldest first."""
        with self._lock:
            self.refresh()
            rows = [self._with_verdict(row) for row in self._index.rows()]
        return rows if asked is None else [row for row in rows if asked.matches(row)]

    def stats(self) -> BankStats:
        """Counts, pass rates and sizes."""
        rows = self.rows()
        with self._lock:
            shards = list(self._index.shards.values())
            damaged = sorted(self._rollouts.damaged | self._verdicts.damaged)
        return BankStats(
            rollouts=len(rows),
            tokens=sum(row["num_tokens"] for row in rows),
            problems=len({row["problem_digest"] for row in rows}),
            shards=len(shards),
            num_bytes=sum(shard.size for shard in shards),
            damaged=tuple(damaged),
            policies=_policy_stats(rows),
        )

    def export(self, path: Path, asked: Filter | None = None) -> int:
        """Write the rollouts that pass to `.jsonl` or `.parquet`; returns how many.

        Raises:
            ConfigError: another suffix.
            DataError: none passes; the file is left as it is.
        """
        from still_core.rollout.bank_export import write_rollouts

        return write_rollouts(path, self._batches(asked))

    def refresh(self) -> None:
        """Index the shards that appeared since the last look."""
        with self._lock:
            for _ in range(VANISHED_RETRIES):
                if not self._index_fresh():
                    break
            self._refresh_verdicts()

    def _index_fresh(self) -> bool:
        """One look; True where a listed shard was merged away before it was read."""
        vanished = False
        fresh = [s for s in self._rollouts.shards() if s.filename not in self._index.shards]
        for shard, table in zip(fresh, self._rollouts.read_light(fresh), strict=True):
            if table is not None:
                self._index.add(shard, table)
            elif shard.filename not in self._rollouts.damaged:
                vanished = True
        self._tell_damaged()
        return vanished

    def _tell_damaged(self) -> None:
        """Name each damaged shard once."""
        for shards, loss in (
            (self._rollouts, "its rollouts are left out"),
            (self._verdicts, "the verdicts before it count again"),
        ):
            for name in sorted(shards.damaged - self._told_damaged):
                self._told_damaged.add(name)
                log.warning(
                    "bank: shard %s is damaged, %s; `still bank gc --yes` sets it aside", name, loss
                )

    def gc(self, *, dry_run: bool = True, pack_bytes: int = PACK_BYTES) -> BankGarbage:
        """Merge small shards, drop duplicate rows, set damaged shards aside.

        Every shard is read first: a row must not be dropped for one that nobody can read.

        Args:
            dry_run: only name.
            pack_bytes: size at which a merged shard is full.

        Raises:
            LeaseError: another collection is at work.
        """
        if dry_run:
            return self._collect(dry_run=True, pack_bytes=pack_bytes, check=lambda: None)
        owner = f"bank gc, pid {os.getpid()}"
        with self._store.lease("bank/packing", ttl_s=PACKING_TTL_S, owner=owner) as lease:
            return self._collect(dry_run=False, pack_bytes=pack_bytes, check=lease.check)

    def judge(self, verdicts: Mapping[str, Verdict]) -> None:
        """Append verdicts by rollout id; they win over the ones before."""
        if verdicts:
            rows = [{"id": name, **verdict_row(verdict)} for name, verdict in verdicts.items()]
            # After all that stand, also where this machine's clock is behind.
            newest = max((shard.created_ms for shard in self._verdicts.shards()), default=0)
            name = ShardWriter().next_name(after_ms=newest)
            self._verdicts.write(columns_of(rows, verdict_schema()), name)
            with self._lock:
                self._refresh_verdicts()

    def regrade(
        self,
        verifier: BatchVerifier,
        problems: Iterable[Problem] | None = None,
        *,
        asked: Filter | None = None,
        batch_size: int = 256,
    ) -> Regrading:
        """Judge stored rollouts again; nothing is generated, old verdicts stay in the log.

        Args:
            verifier: the present one.
            problems: with the gold answers; by default all that the store has published.
            asked: which rollouts.
            batch_size: answers judged, and verdicts made durable, together.
        """
        gold = {
            p.digest: p for p in (published_problems(self._store) if problems is None else problems)
        }
        light = self.rows(asked)
        known = [row for row in light if row["problem_digest"] in gold]
        changed: Counter[str] = Counter()
        judged = 0
        for start in range(0, len(known), batch_size):
            batch = list(self.get(row["id"] for row in known[start : start + batch_size]).values())
            changed += self._regrade_batch(verifier, batch, gold)
            judged += len(batch)
        return Regrading(
            num_in=len(light),
            unchanged=judged - changed.total(),
            changed=dict(sorted(changed.items())),
            unknown_problem=len(light) - len(known),
            lost=len(known) - judged,
        )

    def provenance(self, rollout_id: str) -> dict[str, Any]:
        """One rollout's facts, the policy's published names, and the artefacts made from it.

        Raises:
            DataError: the bank has no such rollout.
            CorruptionError: it had, in a shard that is damaged.
        """
        rollout = self.get([rollout_id]).get(rollout_id)
        if rollout_id in self._lost:
            raise CorruptionError(explain("the rollout's shard is damaged or gone", got=rollout_id))
        if rollout is None:
            raise DataError(explain("no such rollout in the bank", got=rollout_id))
        facts = {
            name: value for name, value in asdict(rollout).items() if name not in HEAVY_COLUMNS
        }
        manifests = self._store.manifests(skip_damaged=True)
        policies = [m for m in manifests if m.digest.startswith(rollout.policy_digest)]
        return {
            **facts,
            "num_tokens": len(rollout.token_ids),
            "policy": [f"{m.name}@{m.version}" for m in policies],
            "used_in": [f"{h.name}@{h.version}" for h in self.users([rollout_id])],
        }

    def users(self, rollout_ids: Iterable[str]) -> list[Handle]:
        """Published tables with a row made from one of these rollouts.

        A demonstration's source, one of a pair, or the writer of a demonstration's solution. What
        can not be read is left out, with a warning.
        """
        wanted = set(rollout_ids)
        found = []
        for manifest in self._store.manifests(skip_damaged=True):
            handle = self._store.find(manifest.name, manifest.version)
            tables = [path for path in manifest.objects if path.endswith(".parquet")]
            try:
                if handle and any(wanted & self._sources(handle, path) for path in tables):
                    found.append(handle)
            except (MissingError, CorruptionError) as error:
                log.warning("%s@%s is left out: %s", manifest.name, manifest.version, error)
        return found

    def _sources(self, handle: Handle, path: str) -> set[str]:
        """Ids of the rollouts that a table's rows come from."""
        ref = self._store.manifest(handle).objects[path]
        found = open_table(self._store.local_copy(ref.key, ref), path, columns=_SOURCE_COLUMNS)
        values = (str(value) for column in found.columns for value in column.to_pylist())
        # A live teacher's row is `bank:<id>:<number>`, a policy's is the id itself.
        return {value.split(":")[1] if value.startswith("bank:") else value for value in values}

    def holds(self, rollout: Rollout) -> bool:
        """Whether an equally good row with this id is already indexed; looks at no storage."""
        # Without the lock, which a reader may hold for long: a duplicate row does no harm.
        place = self._index.places.get(rollout.id)
        return place is not None and (place.judged or not rollout.outcome)

    def _batches(self, asked: Filter | None) -> Iterator[pa.Table]:
        """Rollouts that pass the filter as tables of `rollout_schema`, oldest first."""
        ids = [row["id"] for row in self.rows(asked)]
        for start in range(0, len(ids), ROWS_PER_BATCH):
            with self._lock:
                tables = list(self._load(ids[start : start + ROWS_PER_BATCH]))
            yield from tables

    def _load(self, ids: list[str]) -> Iterator[pa.Table]:
        """Decode rollouts; what was merged away meanwhile is looked up again."""
        left = ids
        for _ in range(VANISHED_RETRIES):
            if not left:
                return
            by_shard: dict[str, list[_Place]] = {}
            for name in left:
                place = self._index.places.get(name)
                if place is not None:
                    by_shard.setdefault(place.filename, []).append(place)
            vanished: set[str] = set()
            for filename, places in by_shard.items():
                rows = sorted(place.row for place in places)
                table = self._rollouts.read_rows(self._index.shards[filename], rows)
                if table is None:
                    vanished.add(filename)
                else:
                    yield self._judge_again(table)
            left = [n for n in left if (p := self._index.places.get(n)) and p.filename in vanished]
            if vanished:
                self._index.drop(vanished)
                self.refresh()
                self._note_lost(left)
        if left:
            raise StoreError(
                explain("shards of the bank vanish faster than they can be read", got=left[:3])
            )

    def _note_lost(self, ids: list[str]) -> None:
        """Tell of those that stood in a shard which can not be read, and stand nowhere else."""
        lost = [name for name in ids if name not in self._index.places]
        self._lost.update(lost)
        if lost:
            log.warning(
                "bank: %d rollouts are lost with shards that are damaged or gone, %s ...",
                len(lost),
                ", ".join(lost[:3]),
            )

    def _judge_again(self, table: pa.Table) -> pa.Table:
        """The table with later verdicts in place of the ones it was written with."""
        import pyarrow as pa

        later = [self._judged.get(name) for name in table["id"].to_pylist()]
        if not any(later):
            return table
        for name in VERDICT_COLUMNS[1:]:
            old = table[name].to_pylist()
            new = [o if v is None else v[name] for o, v in zip(old, later, strict=True)]
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(new, pa.string()))
        return table

    def _with_verdict(self, row: dict[str, Any]) -> dict[str, Any]:
        later = self._judged.get(row["id"])
        return row if later is None else {**row, **later}

    def _refresh_verdicts(self) -> None:
        shards = [s for s in self._verdicts.shards() if s.filename not in self._judged_shards]
        for shard, table in zip(shards, self._verdicts.read_light(shards), strict=True):
            self._judged_shards.add(shard.filename)
            for row in [] if table is None else table.to_pylist():
                # An older shard may be seen later: the newest verdict counts.
                if shard.filename >= self._judged_in.get(row["id"], ""):
                    self._judged[row["id"]], self._judged_in[row["id"]] = row, shard.filename
        self._tell_damaged()

    def _regrade_batch(
        self, verifier: BatchVerifier, rollouts: list[Rollout], gold: Mapping[str, Problem]
    ) -> Counter[str]:
        from still_core.responses.prompts import whole_response
        from still_core.verify import Answer

        answers = []
        for rollout in rollouts:
            problem = gold[rollout.problem_digest]
            answers.append(
                Answer(
                    id=rollout.id,
                    gold=problem.gold,
                    pred=whole_response(rollout.text, rollout.prompt_digest),
                    kind=problem.kind,
                    choices=problem.choices,
                )
            )
        verdicts = verifier.verify_many(answers)
        self.judge({r.id: v for r, v in zip(rollouts, verdicts, strict=True) if differs(r, v)})
        return Counter(
            f"{rollout.outcome or 'unjudged'} -> {verdict.outcome}"
            for rollout, verdict in zip(rollouts, verdicts, strict=True)
            if rollout.outcome != verdict.outcome
        )

    def _collect(self, *, dry_run: bool, pack_bytes: int, check: Any) -> BankGarbage:
        with self._lock:
            for shards in (self._rollouts, self._verdicts):
                shards.find_damaged()
            self._index = _Index()
            self.refresh()
            merges: list[_Merge] = []
            for _ in range(VANISHED_RETRIES):
                if self._merge_runs(merges, dry_run=dry_run, pack_bytes=pack_bytes, check=check):
                    break
                # A shard is damaged or gone: other rows count now, so all is worked out anew.
                self._index = _Index()
                self.refresh()
            damaged = {
                name: shards
                for shards in (self._rollouts, self._verdicts)
                for name in sorted(shards.damaged)
            }
            if not dry_run:
                damaged = {
                    name: shards for name, shards in damaged.items() if shards.quarantine(name)
                }
                self._index = _Index()
                self.refresh()
            orphans = self._rollouts.sweep_light(older_than_s=MIN_AGE_S, dry_run=dry_run)
        return BankGarbage(
            merged=tuple(shard.filename for merge in merges for shard in merge.run),
            packs=sum(any(merge.kept) for merge in merges),
            duplicates=sum(merge.num_dropped() for merge in merges),
            quarantined=tuple(damaged),
            orphans=tuple(orphans),
            removed=not dry_run,
        )

    def _merge_runs(
        self, merges: list[_Merge], *, dry_run: bool, pack_bytes: int, check: Any
    ) -> bool:
        """Merge what can be and note it in `merges`; False where a shard turned out unreadable."""
        for run in _runs_to_merge(self._index, pack_bytes):
            merge = _Merge(run, [self._index.canonical_rows(shard) for shard in run])
            if not dry_run:
                done = self._rollouts.merge(run, merge.kept, ShardWriter(), check=check)
                if not done:
                    return False
            merges.append(merge)
        return True


@dataclass(frozen=True, slots=True)
class _Merge:
    """Shards that become one pack."""

    run: list[Shard]
    kept: list[list[int]]
    """For each, the numbers of the rows that stay."""

    def num_dropped(self) -> int:
        """Rows that another row with the same id stands for."""
        return sum(shard.num_rows for shard in self.run) - sum(map(len, self.kept))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the row that counts for an id stands."""

    filename: str
    row: int
    judged: bool


class _Index:
    """Light columns of the shards, and the row that counts for each id.

    Of several rows with one id a judged one counts, else the oldest: every reader chooses the same.
    """

    def __init__(self) -> None:
        self.shards: dict[str, Shard] = {}
        self.places: dict[str, _Place] = {}
        self._tables: dict[str, pa.Table] = {}

    def add(self, shard: Shard, table: pa.Table) -> None:
        """Index one shard."""
        filename = shard.filename
        self.shards[filename], self._tables[filename] = shard, table
        ids, outcomes = table["id"].to_pylist(), table["outcome"].to_pylist()
        for row, (name, outcome) in enumerate(zip(ids, outcomes, strict=True)):
            place = _Place(filename, row, bool(outcome))
            standing = self.places.get(name)
            if standing is None or _wins(place, standing):
                self.places[name] = place

    def drop(self, filenames: set[str]) -> None:
        """Forget shards; their ids may stand elsewhere, so the rest is indexed again."""
        kept = [(s, self._tables[f]) for f, s in self.shards.items() if f not in filenames]
        self.shards, self.places, self._tables = {}, {}, {}
        for shard, table in kept:
            self.add(shard, table)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The light row of each id, oldest shard first."""
        for filename in sorted(self._tables):
            for number, row in enumerate(self._tables[filename].to_pylist()):
                place = self.places[row["id"]]
                if (place.filename, place.row) == (filename, number):
                    yield row

    def canonical_rows(self, shard: Shard) -> list[int]:
        """Numbers of the rows of `shard` that count."""
        ids = self._tables[shard.filename]["id"].to_pylist()
        places = (self.places[name] for name in ids)
        return [
            number
            for number, place in enumerate(places)
            if (place.filename, place.row) == (shard.filename, number)
        ]


def published_problems(store: Store) -> Iterator[Problem]:
    """Problems with gold answers from every published `problems` or `benchmarks` table."""
    for manifest in store.manifests(skip_damaged=True):
        handle = store.find(manifest.name, manifest.version)
        for path in ("problems.parquet", "benchmarks.parquet"):
            if handle is not None and path in manifest.objects:
                for row in decode_table(store.read_bytes(handle, path), path).to_pylist():
                    yield Problem.from_row(row)


def _wins(new: _Place, old: _Place) -> bool:
    if new.judged != old.judged:
        return new.judged
    return (new.filename, new.row) < (old.filename, old.row)


def _runs_to_merge(index: _Index, pack_bytes: int) -> list[list[Shard]]:
    """Neighbours in age that fit one pack; neighbours, so that the oldest row of an id stays so."""
    runs: list[list[Shard]] = [[]]
    for shard in sorted(index.shards.values()):
        if runs[-1] and sum(s.size for s in runs[-1]) + shard.size > pack_bytes:
            runs.append([])
        runs[-1].append(shard)
    return [
        run
        for run in runs
        if len(run) > 1 or any(len(index.canonical_rows(s)) < s.num_rows for s in run)
    ]


def _policy_stats(rows: list[dict[str, Any]]) -> tuple[PolicyStats, ...]:
    by_policy: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_policy.setdefault((row["policy_version"], row["policy_digest"]), []).append(row)
    return tuple(
        PolicyStats(
            policy_digest=policy,
            policy_version=version,
            rollouts=len(mine),
            problems=len({row["problem_digest"] for row in mine}),
            problems_solved=len({r["problem_digest"] for r in mine if r["outcome"] == "correct"}),
            tokens=sum(row["num_tokens"] for row in mine),
            outcomes=dict(sorted(Counter(row["outcome"] or "unjudged" for row in mine).items())),
        )
        for (version, policy), mine in sorted(by_policy.items())
    )
