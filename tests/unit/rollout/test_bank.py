"""The rollout bank on a folder and on a real S3 server."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from still_core.errors import ConfigError, CorruptionError, DataError, StoreError
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout import bank_writer
from still_core.rollout.bank import RolloutBank
from still_core.rollout.bank_rows import rollout_columns
from still_core.rollout.rollout import FinishReason, Rollout
from still_core.store import Store, shardlog
from still_core.store.shardlog import Shard, ShardLog, ShardWriter
from still_core.store.tables import open_table, table_bytes
from still_core.verify.verdict import Outcome, Verdict


def make_rollout(number: int, *, problem: str = "p", policy: str = "a" * 16, **changes) -> Rollout:
    base = Rollout(
        id=f"{number:016x}",
        problem_id=f"src/{problem}",
        problem_digest=f"digest-{problem}",
        policy_digest=policy,
        policy_version=0,
        prompt_digest="prompt",
        sampling_digest="sampling",
        engine_build="fake 1",
        sample_index=number,
        seed=number,
        text=f"thought {number} \\boxed{{{number}}}",
        token_ids=(number, number + 1, number + 2),
        logprobs=(-0.5, -0.25, -0.125),
        finish_reason=FinishReason.STOP,
        outcome="correct" if number % 2 else "wrong",
        extracted=str(number),
        rule="string",
        verifier_version="v1",
    )
    return replace(base, **changes)


@pytest.fixture
def store(store_root: str, tmp_path: Path) -> Store:
    """An empty store with its own cache."""
    return Store(store_root, cache=tmp_path / "cache")


def shard_keys(store: Store) -> list[str]:
    return [stat.key for stat in store.backend.scan("bank/rollouts/")]


def test_rollouts_come_back_as_they_were_in_another_process_view(store: Store) -> None:
    rollouts = [make_rollout(n) for n in range(10)]
    with RolloutBank(store).writer(owner="run/actor") as writer:
        for rollout in rollouts:
            writer.append(rollout)
    found = RolloutBank(store).get([r.id for r in rollouts] + ["missing"])
    assert list(found.values()) == rollouts


def test_an_unverified_rollout_keeps_its_empty_fields(store: Store) -> None:
    bare = make_rollout(1, outcome="", extracted=None, rule="", verifier_version="")
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(bare)
    assert bank.get([bare.id])[bare.id] == bare


def test_each_id_counts_once_however_often_it_is_written(store: Store) -> None:
    for _ in range(3):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(1))
            writer.append(make_rollout(1))
            writer.append(make_rollout(2))
    bank = RolloutBank(store)
    assert [r.id for r in bank.scan()] == [make_rollout(1).id, make_rollout(2).id]
    assert bank.stats().rollouts == 2


def test_all_readers_choose_the_same_of_two_rows_with_one_id(store: Store) -> None:
    for text in ("first", "second"):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(1, text=text))
        time.sleep(0.002)
    early = RolloutBank(store)
    assert early.get([make_rollout(1).id])[make_rollout(1).id].text == "first"
    with RolloutBank(store).writer(owner="o") as writer:
        writer.append(make_rollout(1, text="third"))
    assert [r.text for r in early.scan()] == ["first"]
    assert [r.text for r in RolloutBank(store).scan()] == ["first"]


def test_a_judged_row_wins_over_an_unjudged_one(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(1, outcome=""))
        writer.append(make_rollout(1, outcome="correct"))
        writer.append(make_rollout(1, outcome=""))
    assert [r.outcome for r in bank.scan()] == ["correct"]


def test_an_appended_rollout_is_durable_within_the_flush_time(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o", flush_s=1.0) as writer:
        writer.append(make_rollout(1))
        deadline = time.monotonic() + 1.5
        while not RolloutBank(store).get([make_rollout(1).id]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert RolloutBank(store).get([make_rollout(1).id])


def test_a_row_waits_for_a_hundredth_of_its_writers_time_and_never_long(store: Store) -> None:
    with RolloutBank(store).writer(owner="o") as writer:
        waits = []
        for age in (0.0, 10.0, 50.0, 10_000.0):
            writer._buffer, writer._oldest_at = {"1": make_rollout(1)}, time.monotonic()
            writer._first_at = writer._oldest_at - age
            waits.append(writer._patience())
            writer._buffer = {}
    assert waits == pytest.approx([0.02, 0.1, 0.5, 1.0], abs=0.01)


def test_the_first_row_waits_no_longer_where_the_writer_stood_open_for_long(store: Store) -> None:
    with RolloutBank(store).writer(owner="o") as writer:
        time.sleep(0.3)
        writer.append(make_rollout(1))
        assert writer._first_at == pytest.approx(time.monotonic(), abs=0.2)


def test_a_rollout_whose_verdict_comes_before_its_shard_stands_in_it_once(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer._first_at = time.monotonic() - 1_000  # a row waits for a second
        writer.append(make_rollout(1, outcome=""))
        writer.append(make_rollout(1, outcome="correct"))
    (shard,) = bank._rollouts.shards()
    assert shard.num_rows == 1
    assert bank.rows()[0]["outcome"] == "correct"


def test_a_merge_drops_the_rows_that_came_once_more_with_their_verdict(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(16):
            writer.append(make_rollout(number, outcome=""))
            writer.flush()
        for number in range(0, 16, 2):
            writer.append(make_rollout(number, outcome="wrong"))
            writer.flush()
    (shard,) = bank._rollouts.shards()
    assert shard.num_rows == 16
    assert [row["outcome"] for row in sorted(bank.rows(), key=lambda r: r["id"])] == [
        "wrong" if number % 2 == 0 else "" for number in range(16)
    ]


def test_a_merge_keeps_a_row_whose_judged_twin_stands_in_a_damaged_shard(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(16):
            writer.append(make_rollout(number, outcome=""))
            writer.flush()
        time.sleep(0.002)
        writer.append(make_rollout(0, outcome="correct"))
        writer.flush()
        flip_byte(store, shard_keys(store)[-1])
        bank.refresh()
    assert len(RolloutBank(store).rows()) == 16


def test_many_writers_at_once_lose_nothing(store: Store) -> None:
    def write(base: int) -> None:
        with RolloutBank(store).writer(owner=f"actor-{base}", flush_s=0.1) as writer:
            for number in range(base, base + 25):
                writer.append(make_rollout(number))
                if number % 10 == 0:
                    writer.flush()

    threads = [threading.Thread(target=write, args=(base * 20,)) for base in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Ranges of 25 every 20: 5 of each overlap with the next writer's.
    assert len(list(RolloutBank(store).scan())) == 5 * 20 + 25


def test_filters_choose_by_problem_policy_outcome_and_round(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(1, problem="x"))
        writer.append(make_rollout(2, problem="x", policy_version=1, policy="b" * 16))
        writer.append(make_rollout(3, problem="y", policy_version=1))
    ids = {n: make_rollout(n).id for n in (1, 2, 3)}
    assert [r.id for r in bank.scan(problem="src/x")] == [ids[1], ids[2]]
    assert [r.id for r in bank.scan(problem="digest-y")] == [ids[3]]
    assert [r.id for r in bank.scan(policy="bbbb")] == [ids[2]]
    assert [r.id for r in bank.scan(outcome="correct")] == [ids[1], ids[3]]
    assert [r.id for r in bank.scan(round=1, outcome="wrong")] == [ids[2]]


def test_stats_count_pass_rates_by_policy(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(4):
            writer.append(make_rollout(number, problem=str(number % 2)))
    stats = bank.stats()
    assert (stats.rollouts, stats.tokens, stats.problems, stats.damaged) == (4, 12, 2, ())
    (policy,) = stats.policies
    assert policy.outcomes == {"correct": 2, "wrong": 2}
    assert policy.pass_rate == 0.5
    # Odd numbers are correct and belong to problem 1.
    assert (policy.problems, policy.problems_solved) == (2, 1)


def test_a_damaged_shard_is_named_and_left_out(store: Store) -> None:
    for number in (1, 2):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(number))
        time.sleep(0.002)
    torn = shard_keys(store)[0]
    store.backend.put(torn, store.backend.read(torn).data[:-20])
    bank = RolloutBank(store)
    assert [r.id for r in bank.scan()] == [make_rollout(2).id]
    assert bank.stats().damaged == (torn.rpartition("/")[2],)
    report = bank.gc(dry_run=False)
    assert report.quarantined == (torn.rpartition("/")[2],)
    assert torn not in shard_keys(store)
    assert store.backend.stat(torn.replace("bank/rollouts/", "bank/rollouts-damaged/")) is not None
    assert bank.stats().damaged == ()


def test_foreign_files_among_the_shards_are_ignored(store: Store) -> None:
    store.backend.put("bank/rollouts/notes.txt", b"hello")
    store.backend.put("bank/rollouts/x.parquet", b"hello")
    assert list(RolloutBank(store).scan()) == []


def test_merging_keeps_every_rollout_and_drops_duplicates(store: Store) -> None:
    for number in (1, 2, 3, 1, 2):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(number))
    bank = RolloutBank(store)
    before = list(bank.scan())
    named = bank.gc()
    assert (len(named.merged), named.packs, named.duplicates, named.removed) == (5, 1, 2, False)
    assert len(shard_keys(store)) == 5
    done = RolloutBank(store).gc(dry_run=False)
    assert (done.packs, done.duplicates, done.removed) == (1, 2, True)
    assert len(shard_keys(store)) == 1
    assert list(RolloutBank(store).scan()) == before
    assert RolloutBank(store).gc().merged == ()


def test_a_reader_survives_a_merge_under_its_hands(store: Store) -> None:
    for number in (1, 2, 3):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(number))
    reader = RolloutBank(store)
    reader.refresh()
    RolloutBank(store).gc(dry_run=False)
    ids = [make_rollout(n).id for n in (1, 2, 3)]
    assert list(reader.get(ids)) == ids
    assert len(list(reader.scan())) == 3


def test_a_reader_that_listed_shards_before_a_merge_reads_the_merged_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(number))
    reader = RolloutBank(store)
    listed = reader._rollouts.shards()
    RolloutBank(store).gc(dry_run=False)
    looks = [listed]
    shards = reader._rollouts.shards
    monkeypatch.setattr(reader._rollouts, "shards", lambda: looks.pop() if looks else shards())
    ids = [make_rollout(n).id for n in (1, 2, 3)]
    assert list(reader.get(ids)) == ids


def test_a_shard_that_the_store_refuses_is_not_durable_and_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o", flush_s=60) as writer:
        writer.append(make_rollout(1))
        with monkeypatch.context() as damaged:
            damaged.setattr(store.backend, "create", lambda key, data: False)
            with pytest.raises(StoreError, match="damaged on its way"):
                writer.flush()
        assert list(RolloutBank(store).scan()) == []
        writer.flush()
        assert [rollout.id for rollout in RolloutBank(store).scan()] == [make_rollout(1).id]


def test_export_to_jsonl_and_parquet_is_read_by_pandas(store: Store, tmp_path: Path) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(5):
            writer.append(make_rollout(number))
    assert bank.export(tmp_path / "all.jsonl") == 5
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert rows[3]["token_ids"] == [3, 4, 5]
    assert bank.export(tmp_path / "all.parquet") == 5
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert frame["outcome"].value_counts().to_dict() == {"wrong": 3, "correct": 2}
    with pytest.raises(ConfigError, match="export format"):
        bank.export(tmp_path / "all.xlsx")


class FlippedVerifier:
    """Calls everything correct, as version 2."""

    def verify_many(self, answers):
        return [
            Verdict(
                outcome=Outcome.CORRECT,
                extracted=answer.gold,
                rule="new",
                verifier_version="v2",
                seconds=0.0,
            )
            for answer in answers
        ]


def gold_problem() -> Problem:
    return Problem(
        id="src/p",
        statement="s",
        gold="7",
        kind=AnswerKind.MATH,
        domain="math",
        bucket=Bucket.OTHER,
        source="src",
        row=0,
    )


def test_regrading_counts_changes_and_generates_nothing(store: Store) -> None:
    problem = gold_problem()
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(4):
            writer.append(make_rollout(number, problem_digest=problem.digest))
        writer.append(make_rollout(9))
    report = bank.regrade(FlippedVerifier(), [problem], batch_size=3)
    assert (report.num_in, report.unchanged, report.unknown_problem) == (5, 2, 1)
    assert report.changed == {"wrong -> correct": 2}
    # The bank that regraded, and a fresh one, both answer with the new verdicts.
    assert bank.get([make_rollout(2).id])[make_rollout(2).id].verifier_version == "v2"
    again = list(RolloutBank(store).scan(outcome="correct"))
    assert len(again) == 5
    assert again[0].verifier_version == "v2"
    assert again[0].extracted == "7"


def test_regrading_finds_published_problems_by_itself(store: Store) -> None:
    from still_core.store.bundle import publish_tables

    problem = gold_problem()
    publish_tables(store, "collect", "1", {"problems": [problem.to_row()]})
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(2, problem_digest=problem.digest))
    assert bank.regrade(FlippedVerifier()).changed == {"wrong -> correct": 1}


def test_provenance_leads_back_to_the_policy_and_forward_to_the_data(store: Store) -> None:
    model = store.publish("models/m0", "1", {"w": b"weights"})
    rollout = make_rollout(1, policy=model.digest)
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(rollout)
    store.publish_table("demonstrations", "1", [{"id": "d", "source_row": rollout.id}])
    store.publish_table("other", "1", [{"id": "d", "source_row": "file:3"}])
    facts = bank.provenance(rollout.id)
    assert facts["policy"] == ["models/m0@1"]
    assert facts["used_in"] == ["demonstrations@1"]
    assert facts["outcome"] == "correct"
    with pytest.raises(DataError, match="no such rollout"):
        bank.provenance("nothing")


def test_text_that_is_no_utf8_costs_no_rollout(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(1, text="a\ud800b", extracted="\udfff"))
        writer.append(make_rollout(2, text="nul \0 and \U0001f600"))
    first, second = bank.scan()
    assert first.text == "a\ufffdb"
    assert second.text == "nul \0 and \U0001f600"


def test_a_rollout_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with RolloutBank(Store(tmp_path / "s")).writer(owner="o") as writer:
        with pytest.raises(DataError, match="number of log-probs"):
            writer.append(make_rollout(1, logprobs=(-1.0,)))
        with pytest.raises(DataError, match="without an id"):
            writer.append(make_rollout(1, id=""))
    with pytest.raises(StoreError, match="closed"):
        writer.append(make_rollout(1))


def test_a_bank_crosses_a_process_boundary(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        writer.append(make_rollout(1))
    assert len(list(pickle.loads(pickle.dumps(bank)).scan())) == 1


def test_a_merged_shard_is_indexed_without_its_bytes(store: Store, tmp_path: Path) -> None:
    for number in (1, 2):
        with RolloutBank(store).writer(owner="o") as writer:
            writer.append(make_rollout(number))
    RolloutBank(store).gc(dry_run=False)
    (pack,) = shard_keys(store)
    data = store.backend.read(pack).data
    store.backend.put(pack, b"")
    fresh = RolloutBank(Store(store.root, cache=tmp_path / "fresh"))
    assert [row["id"] for row in fresh.rows()] == [make_rollout(n).id for n in (1, 2)]
    store.backend.put(pack, data)
    (light,) = [stat.key for stat in store.backend.scan("bank/rollouts-light/")]
    store.backend.put(light, b"damaged")
    fresh = RolloutBank(Store(store.root, cache=tmp_path / "fresher"))
    assert len(list(fresh.scan())) == 2


def test_a_writer_leaves_one_shard_where_it_wrote_many(store: Store) -> None:
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(20):
            writer.append(make_rollout(number))
            writer.flush()
        assert len(shard_keys(store)) == 20
        assert len(list(RolloutBank(store).scan())) == 20
    assert len(shard_keys(store)) == 1
    assert list(bank.scan()) == [make_rollout(number) for number in range(20)]


def hold_rows(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A writer merges when it holds more rows than these."""
    row = pa.table(rollout_columns([make_rollout(1)])).nbytes
    monkeypatch.setattr(bank_writer, "MAX_HELD", count * row)


def test_a_writer_that_holds_too_many_rows_merges_their_shards_on_the_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_rows(monkeypatch, 18)
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(22):
            writer.append(make_rollout(number))
            writer.flush()
        until = time.monotonic() + 10
        while len(shard_keys(store)) > 6:
            assert time.monotonic() < until, "nothing was merged"
            time.sleep(0.01)
    assert sorted(r.sample_index for r in bank.scan()) == list(range(22))


def test_a_writer_that_holds_too_many_rows_only_at_its_end_merges_them_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_rows(monkeypatch, 18)
    with RolloutBank(store).writer(owner="o", flush_s=60) as writer:
        for number in range(16):
            writer.append(make_rollout(number))
            writer.flush()
        for number in range(16, 24):
            writer.append(make_rollout(number))
    assert len(shard_keys(store)) == 1
    assert len(RolloutBank(store).rows()) == 24


def test_a_writer_whose_merge_takes_long_goes_on_and_leaves_the_next_shards_to_gc(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_rows(monkeypatch, 18)
    merge_own, may_go_on = ShardLog.merge_own, threading.Event()

    def merge_late(self: ShardLog, *arguments: Any, **options: Any) -> None:
        assert may_go_on.wait(10)
        merge_own(self, *arguments, **options)

    monkeypatch.setattr(ShardLog, "merge_own", merge_late)
    bank = RolloutBank(store)
    with bank.writer(owner="o") as writer:
        for number in range(38):
            writer.append(make_rollout(number))
            writer.flush()
        assert len(shard_keys(store)) == 38
        may_go_on.set()
    assert len(shard_keys(store)) == 1 + 20
    assert sorted(r.sample_index for r in bank.scan()) == list(range(38))


def test_a_writer_merges_nothing_across_the_shards_of_another(store: Store) -> None:
    with RolloutBank(store).writer(owner="a") as writer:
        for number in range(8):
            writer.append(make_rollout(number))
            writer.flush()
        time.sleep(0.002)
        write_shard(BlindBank(store), 20, text="of the other")
        writer.append(make_rollout(20, text="of this one"))
        for number in range(8, 16):
            writer.append(make_rollout(number))
            writer.flush()
    assert len(shard_keys(store)) == 3
    assert RolloutBank(store).get([make_rollout(20).id]).popitem()[1].text == "of the other"


def test_a_listing_that_a_merge_overtakes_misses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_shard(RolloutBank(store), number)
    scan = type(store.backend).scan
    listed: list[str] = []

    def overtaken(self: Any, prefix: str) -> Iterator[Any]:
        """The first look finds the places of the shards after a merge, that of the pack before."""
        stats = list(scan(self, prefix))
        if prefix == "bank/rollouts/" and not listed:
            listed.append(prefix)
            RolloutBank(store).gc(dry_run=False)
            stats = []
        yield from stats

    monkeypatch.setattr(type(store.backend), "scan", overtaken)
    assert len(RolloutBank(store).rows()) == 3


def interrupted(bank: RolloutBank) -> None:
    """A campaign that is interrupted when 20 shards are written and one rollout is not."""
    with bank.writer(owner="o", flush_s=60) as writer:
        for number in range(20):
            writer.append(make_rollout(number))
            writer.flush()
        writer.append(make_rollout(20))
        raise KeyboardInterrupt


def test_a_campaign_that_is_interrupted_saves_what_it_has_and_merges_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(RolloutBank(store))
    assert len(shard_keys(store)) == 21


def test_what_ends_a_campaign_is_told_though_the_store_fails_as_well(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = ShardLog.write

    def refuse_the_last(self: ShardLog, columns: Any, *rest: Any) -> Shard:
        if columns["sample_index"].to_pylist() == [20]:
            raise StoreError("the store is away")
        return write(self, columns, *rest)

    monkeypatch.setattr(ShardLog, "write", refuse_the_last)
    with pytest.raises(KeyboardInterrupt):
        interrupted(RolloutBank(store))
    assert "1 finished rollouts could not be saved" in caplog.text


def test_a_merge_that_fails_costs_a_campaign_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("may not delete")

    monkeypatch.setattr(ShardLog, "remove", refuse)
    with RolloutBank(store).writer(owner="o") as writer:
        for number in range(20):
            writer.append(make_rollout(number))
            writer.flush()
    assert "may not delete" in caplog.text
    assert len(list(RolloutBank(store).scan())) == 20


def test_rows_that_could_not_be_encoded_at_once_are_written_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RolloutBank(store).writer(owner="o", flush_s=60) as writer:
        writer.append(make_rollout(1))
        with monkeypatch.context() as patched:
            patched.setattr(bank_writer, "rollout_columns", no_memory)
            with pytest.raises(MemoryError):
                writer.flush()
    assert [rollout.sample_index for rollout in RolloutBank(store).scan()] == [1]


def no_memory(*_: object) -> None:
    raise MemoryError


def test_a_writer_merges_nothing_that_another_has_merged_meanwhile(store: Store) -> None:
    with RolloutBank(store).writer(owner="o") as writer:
        for number in range(20):
            writer.append(make_rollout(number))
            writer.flush()
        RolloutBank(store).gc(dry_run=False)
        (pack,) = shard_keys(store)
    assert shard_keys(store) == [pack]
    assert len(list(RolloutBank(store).scan())) == 20


class BlindBank(RolloutBank):
    """A run that drew what another run draws at the same time."""

    def holds(self, rollout: Rollout) -> bool:
        return False


def write_shard(bank: RolloutBank, *numbers: int, **changes) -> None:
    with bank.writer(owner="o", flush_s=60) as writer:
        for number in numbers:
            writer.append(make_rollout(number, **changes))
    time.sleep(0.002)


def flip_byte(store: Store, key: str) -> None:
    data = bytearray(store.backend.read(key).data)
    data[100] ^= 1
    store.backend.put(key, bytes(data))


def test_a_duplicate_stays_where_the_pack_that_holds_its_row_is_damaged(
    store: Store, tmp_path: Path
) -> None:
    write_shard(RolloutBank(store), 1, 2)
    write_shard(RolloutBank(store), 3)
    RolloutBank(store).gc(dry_run=False)
    (pack,) = shard_keys(store)
    write_shard(BlindBank(store), 1, 4)
    flip_byte(store, pack)
    size = store.backend.stat(pack).size
    fresh = RolloutBank(Store(store.root, cache=tmp_path / "fresh"))
    named = fresh.gc(pack_bytes=size)
    assert (named.merged, named.quarantined) == ((), (pack.rpartition("/")[2],))
    done = RolloutBank(Store(store.root, cache=tmp_path / "fresher")).gc(
        dry_run=False, pack_bytes=size
    )
    assert (done.merged, done.duplicates) == ((), 0)
    assert "which is damaged" in "\n".join(done.lines())
    assert [r.id for r in RolloutBank(store).scan()] == [make_rollout(n).id for n in (1, 4)]


def test_a_collection_that_meets_damage_works_out_the_rest_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (1, 2, 3):
        write_shard(RolloutBank(store), number)
    bank = RolloutBank(store)
    bank.refresh()
    damaged = shard_keys(store)[1]
    flip_byte(store, damaged)
    report = bank.gc(dry_run=False)
    assert (len(report.merged), report.packs) == (2, 1)
    assert report.quarantined == (damaged.rpartition("/")[2],)
    assert [r.id for r in RolloutBank(store).scan()] == [make_rollout(n).id for n in (1, 3)]


def test_a_shard_that_is_merged_away_before_it_is_opened_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    for number in (1, 2, 3):
        write_shard(RolloutBank(store), number)
    merged: list[bool] = []

    def open_late(path: Path, key: str, **chosen):
        if not merged:
            merged.append(True)
            RolloutBank(store).gc(dry_run=False)
        return open_table(path, key, **chosen)

    monkeypatch.setattr(shardlog, "open_table", open_late)
    ids = [make_rollout(n).id for n in (1, 2, 3)]
    bank = RolloutBank(store)
    assert list(bank.get(ids)) == ids
    assert bank.stats().damaged == ()


def test_a_shard_that_the_system_refuses_to_open_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    write_shard(RolloutBank(store), 1)
    bank = RolloutBank(store)

    def refuse(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as refusing:
        refusing.setattr("pyarrow.parquet.ParquetFile", refuse)
        with pytest.raises(StoreError, match="Too many open files; raise the limit"):
            bank.get([make_rollout(1).id])
    assert len(bank.get([make_rollout(1).id])) == 1
    assert bank.stats().damaged == ()


@pytest.mark.integration
def test_a_cached_shard_that_rots_after_its_check_is_fetched_again(
    s3_root: str, tmp_path: Path
) -> None:
    store = Store(s3_root, cache=tmp_path / "cache")
    write_shard(RolloutBank(store), 1)
    bank = RolloutBank(store)
    assert len(list(bank.scan())) == 1
    (cached,) = (tmp_path / "cache" / "objects").iterdir()
    cached.chmod(0o644)
    cached.write_bytes(b"PAR1 rotten PAR1")
    assert len(list(bank.scan())) == 1
    assert bank.stats().damaged == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("problem_id", "a\ud800b"),
        ("seed", 2**63),
        ("sample_index", -(2**31) - 1),
        ("token_ids", (1, 2**31, 3)),
        ("rule", None),
    ],
)
def test_a_row_that_no_shard_can_hold_is_refused_by_field_and_blocks_no_other(
    tmp_path: Path, field: str, value: object
) -> None:
    bank = RolloutBank(Store(tmp_path))
    with bank.writer(owner="o", flush_s=60) as writer:
        writer.append(make_rollout(1))
        with pytest.raises(DataError, match=f"{field} can not be stored"):
            writer.append(make_rollout(2, **{field: value}))
        writer.append(make_rollout(2))
    assert [r.id for r in bank.scan()] == [make_rollout(n).id for n in (1, 2)]


def test_the_later_verdict_wins_whatever_the_clock_of_its_machine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(RolloutBank(store), 1)
    now = time.time
    for version, hours in (("v2", 0), ("v3", 1), ("v4", 2)):
        monkeypatch.setattr(time, "time", lambda hours=hours: now() - 3600 * hours)
        verdict = Verdict(
            outcome=Outcome.WRONG, extracted="x", rule="r", verifier_version=version, seconds=0.0
        )
        RolloutBank(store).judge({make_rollout(1).id: verdict})
    (row,) = RolloutBank(store).rows()
    assert row["verifier_version"] == "v4"


def test_provenance_finds_answers_of_live_teachers_pairs_and_written_solutions(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    asked = make_rollout(1).id
    rows = {
        "taught": {"source_row": f"bank:{asked}:0"},
        "chosen": {"chosen_source_row": asked, "rejected_source_row": "other"},
        "rejected": {"chosen_source_row": "other", "rejected_source_row": f"bank:{asked}:1"},
        "completed": {"source_row": "file:3", "solution_rollout_id": asked},
        "unrelated": {"source_row": "bank:other:0", "solution_rollout_id": ""},
    }
    for name, row in rows.items():
        store.publish_table(name, "1", [row])
    found = {handle.name for handle in RolloutBank(store).users([asked])}
    assert found == {"taught", "chosen", "rejected", "completed"}


def test_a_shard_from_before_there_were_tools_is_read_and_merged_with_a_new_one(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    old = rollout_columns([make_rollout(1)])
    del old["tools"]
    ShardLog(store, "bank/rollouts", columns=()).write(old, ShardWriter().next_name())
    time.sleep(0.002)
    write_shard(RolloutBank(store), 2, tools="python 3.12")
    before = list(RolloutBank(store).scan())
    assert [rollout.tools for rollout in before] == ["", "python 3.12"]
    RolloutBank(store).gc(dry_run=False)
    assert list(RolloutBank(store).scan()) == before
    assert len(shard_keys(store)) == 1


@pytest.fixture
def rotten_pack(store: Store, tmp_path: Path) -> tuple[RolloutBank, str]:
    """A bank seen anew, and a merged shard of it that rotted beside its sound light columns."""
    digest = gold_problem().digest
    for number in (1, 2):
        write_shard(RolloutBank(store), number, problem_digest=digest)
    RolloutBank(store).gc(dry_run=False)
    (pack,) = shard_keys(store)
    write_shard(RolloutBank(store), 3, problem_digest=digest)
    flip_byte(store, pack)
    return RolloutBank(Store(store.root, cache=tmp_path / "fresh")), pack.rpartition("/")[2]


def test_an_export_names_the_damaged_shard_and_counts_what_is_lost_with_it(
    rotten_pack: tuple[RolloutBank, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bank, pack = rotten_pack
    assert bank.export(tmp_path / "out.parquet") == 1
    assert f"{pack} is damaged, its rollouts are left out" in caplog.text
    assert "2 rollouts are lost" in caplog.text


def test_a_lost_rollout_is_not_called_unknown(rotten_pack: tuple[RolloutBank, str]) -> None:
    bank, _ = rotten_pack
    with pytest.raises(CorruptionError, match="shard is damaged or gone"):
        bank.provenance(make_rollout(1).id)


def test_regrading_counts_the_rollouts_that_turn_out_lost(
    rotten_pack: tuple[RolloutBank, str],
) -> None:
    report = rotten_pack[0].regrade(FlippedVerifier(), [gold_problem()])
    assert (report.num_in, report.unchanged, report.lost) == (3, 1, 2)


def test_a_collection_finds_the_damaged_shard_whose_light_columns_are_whole(
    rotten_pack: tuple[RolloutBank, str],
) -> None:
    bank, pack = rotten_pack
    assert bank.gc().quarantined == (pack,)
    assert bank.gc(dry_run=False).quarantined == (pack,)
    assert bank.gc().quarantined == ()
    assert len(bank.rows()) == 1


def test_a_damaged_shard_of_verdicts_is_named_and_set_aside(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(RolloutBank(store), 1)
    verdict = Verdict(
        outcome=Outcome.WRONG, extracted="x", rule="r", verifier_version="v2", seconds=0.0
    )
    RolloutBank(store).judge({make_rollout(1).id: verdict})
    (key,) = [stat.key for stat in store.backend.scan("bank/verdicts/")]
    flip_byte(store, key)
    bank = RolloutBank(Store(store.root, cache=tmp_path / "fresh"))
    assert [row["outcome"] for row in bank.rows()] == ["correct"]
    name = key.rpartition("/")[2]
    assert f"{name} is damaged, the verdicts before it count again" in caplog.text
    assert bank.stats().damaged == (name,)
    assert bank.gc(dry_run=False).quarantined == (name,)
    assert RolloutBank(store).stats().damaged == ()


@pytest.mark.parametrize("table", [b"no Parquet", table_bytes([{"stranger": 1}])])
def test_a_foreign_table_under_a_fitting_name_is_set_aside_and_blocks_nothing(
    store: Store, table: bytes
) -> None:
    write_shard(RolloutBank(store), 1)
    digest = hashlib.sha256(table).hexdigest()
    name = f"{'0' * 13}-{'a' * 12}-000001-1-{digest}.parquet"
    store.backend.put(f"bank/rollouts/{name}", table)
    bank = RolloutBank(store)
    assert len(list(bank.scan())) == 1
    assert bank.stats().damaged == (name,)
    assert bank.gc(dry_run=False).quarantined == (name,)
    assert RolloutBank(store).stats().damaged == ()


def test_a_writer_with_a_million_shards_goes_on_under_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shardlog, "MAX_SEQUENCE", 2)
    writer = ShardWriter()
    names = [writer.next_name() for _ in range(5)]
    assert [sequence for _, _, sequence in names] == [1, 2, 1, 2, 1]
    assert len({name for _, name, _ in names}) == 3


def test_a_users_table_that_lost_its_file_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    asked = make_rollout(1).id
    for name in ("lost", "whole"):
        store.publish_table(name, "1", [{"source_row": asked, "text": name}])
    (ref,) = store.manifest(store.find("lost", "1")).objects.values()
    store.backend.delete(ref.key)
    assert [handle.name for handle in RolloutBank(store).users([asked])] == ["whole"]
    assert "lost@1 is left out" in caplog.text


def test_setting_aside_a_shard_that_is_gone_does_nothing(store: Store) -> None:
    name = "0" * 13 + "-" + "a" * 12 + "-000001-1-" + "b" * 64 + ".parquet"
    assert not ShardLog(store, "bank/rollouts", columns=()).quarantine(name)


def test_light_files_whose_shard_is_gone_are_removed_once_they_are_old(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (1, 2):
        write_shard(RolloutBank(store), number)
    RolloutBank(store).gc(dry_run=False)
    (needed,) = [stat.key for stat in store.backend.scan("bank/rollouts-light/")]
    young, old = (f"bank/rollouts-light/{c * 64}-{c * 64}.parquet" for c in "ab")
    for key in (young, old):
        store.backend.put(key, b"left behind")
    for key in (needed, old):
        os.utime(tmp_path / key, (0, 0))
    assert RolloutBank(store).gc().orphans == (old,)
    assert RolloutBank(store).gc(dry_run=False).orphans == (old,)
    assert [stat.key for stat in store.backend.scan("bank/rollouts-light/")] == sorted(
        [needed, young]
    )


def refuse_the_first_shard(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None] = lambda: None
) -> threading.Event:
    """Set when the store has refused a shard; the ones after it are written."""
    write, refused = ShardLog.write, threading.Event()

    def refuse_once(self: ShardLog, *arguments: Any, **options: Any) -> Shard:
        if refused.is_set():
            return write(self, *arguments, **options)
        meanwhile()
        refused.set()
        raise StoreError("the store is away")

    monkeypatch.setattr(ShardLog, "write", refuse_once)
    return refused


def test_what_comes_after_a_failed_flush_is_kept_and_the_failure_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refuse_the_first_shard(monkeypatch)
    with RolloutBank(Store(tmp_path)).writer(owner="w") as writer:
        writer.append(make_rollout(0))
        assert refused.wait(5)
        time.sleep(0.1)  # the writer notes it, and tries again after two seconds
        told = 0
        for number in range(1, 9):
            try:
                writer.append(make_rollout(number))
            except StoreError:
                told += 1
    assert told
    assert len(RolloutBank(Store(tmp_path)).rows()) == 9


def test_a_verdict_that_comes_while_a_flush_fails_is_not_overwritten_by_the_row_it_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = make_rollout(0, outcome="correct")
    refused = refuse_the_first_shard(monkeypatch, lambda: writer.append(judged))
    with RolloutBank(Store(tmp_path)).writer(owner="w") as writer:
        writer.append(make_rollout(0, outcome=""))
        assert refused.wait(5)
    (row,) = RolloutBank(Store(tmp_path)).rows()
    assert row["outcome"] == "correct"
