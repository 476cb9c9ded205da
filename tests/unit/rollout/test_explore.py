"""Exploration over scripted parts: what counts, what is drawn, what is banked, in any order."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from still_core.errors import DataError, MissingError, RolloutError
from still_core.identity import canonical, digest
from still_core.problems.difficulty import PassRate, measured_rates
from still_core.problems.pool import PoolRecipe
from still_core.problems.problem import AnswerKind, Bucket, Problem
from still_core.rollout import search
from still_core.rollout.bank import RolloutBank
from still_core.rollout.explore import Exploration, explore
from still_core.rollout.found import (
    draw_problems,
    publish_exploration,
    read_exploration,
    read_selected,
    read_siblings,
)
from still_core.rollout.recipe import ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Completion, FinishReason, Rollout, RolloutRequest, Sampling
from still_core.rollout.sample import SampleResult, sample
from still_core.store import Store
from still_core.store.tables import table_bytes
from still_core.verify import VERIFIER_VERSION
from still_core.verify.verdict import Outcome, Verdict
from tasks.explore import pool_is_exhausted


class PlainPrompt:
    """A prompt that is the statement itself."""

    def render(self, problem_statement: str, tokenizer: Any) -> str:
        return problem_statement

    def digest(self, tokenizer: Any) -> str:
        return "plain"


@dataclass
class ScriptedPool:
    """Answers `good` or `bad` by (problem, sample index), finishing in an order of its own."""

    correct_at: Mapping[str, Iterable[int]]
    order_seed: int = 0
    capacity: int = 8
    engine_build: str = "scripted 1"
    policy_digest: str = "policy"
    policy_version: int = 0
    tokenizer: Any = None
    crash_after: int | None = None
    drawn: list[tuple[str, int]] = field(default_factory=list)
    waiting: dict[str, RolloutRequest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.order_seed)

    @property
    def room(self) -> int:
        return 2 * self.capacity - len(self.waiting)

    def submit(self, requests: Iterable[RolloutRequest]) -> None:
        for request in requests:
            self.waiting[request.id] = request

    def cancel(self, ids: Iterable[str]) -> None:
        for identity in ids:
            self.waiting.pop(identity, None)

    def pending(self) -> int:
        return len(self.waiting)

    def poll(self, timeout_s: float = 0.25) -> list[Rollout]:
        count = self.rng.randint(0, min(3, len(self.waiting)))
        chosen = self.rng.sample(sorted(self.waiting), count)
        return [self._finish(self.waiting.pop(identity)) for identity in chosen]

    def _finish(self, request: RolloutRequest) -> Rollout:
        self.drawn.append((request.problem_id, request.sample_index))
        if self.crash_after is not None and len(self.drawn) > self.crash_after:
            raise KeyboardInterrupt
        good = request.sample_index in set(self.correct_at.get(request.problem_id, ()))
        completion = Completion(
            text="good" if good else "bad",
            token_ids=(1, 2, 3),
            logprobs=(-1.0, -1.0, -1.0),
            finish_reason=FinishReason.STOP,
        )
        return Rollout.of(request, completion)


class ScriptedVerifier:
    """Judges `good` correct, at once or late."""

    version = VERIFIER_VERSION

    def __init__(self, *, lag: int = 0) -> None:
        self.lag, self.held, self.count = lag, [], 0

    def submit(self, answer: Any) -> Future[Verdict]:
        self.count += 1
        future: Future[Verdict] = Future()
        self.held.append((future, answer))
        while len(self.held) > self.lag:
            self._release()
        if self.lag:
            import threading

            threading.Timer(0.01, self._release_all).start()
        return future

    def _release_all(self) -> None:
        while self.held:
            self._release()

    def _release(self) -> None:
        future, answer = self.held.pop(0)
        outcome = Outcome.CORRECT if answer.pred == "good" else Outcome.WRONG
        future.set_result(
            Verdict(
                outcome=outcome,
                extracted=answer.pred,
                rule="string",
                verifier_version=VERIFIER_VERSION,
                seconds=0.0,
            )
        )


class BusyVerifier(ScriptedVerifier):
    """Comes to no verdict."""

    def submit(self, answer: Any) -> Future[Verdict]:
        return Future()


class MemoryBank:
    """A bank that lives as long as the test."""

    def __init__(self) -> None:
        self.rows: dict[str, Rollout] = {}
        self.appended: list[str] = []

    def get(self, ids: Iterable[str]) -> dict[str, Rollout]:
        return {identity: self.rows[identity] for identity in ids if identity in self.rows}

    @contextmanager
    def writer(self, *, owner: str) -> Iterator[MemoryBank]:
        yield self

    def append(self, rollout: Rollout) -> None:
        self.appended.append(rollout.id)
        self.rows.setdefault(rollout.id, rollout)


def make_problems(count: int) -> list[Problem]:
    return [
        Problem(
            id=f"p{number}",
            statement=f"{number}+1?",
            gold=str(number + 1),
            kind=AnswerKind.TEXT,
            domain="math",
            bucket=Bucket.NORMAL_MATH,
            source="test",
            row=number,
        )
        for number in range(count)
    ]


def run(
    pool: ScriptedPool,
    count: int,
    *,
    bank: MemoryBank | None = None,
    verifier: ScriptedVerifier | None = None,
    waves: tuple[int, ...] = (1, 1, 2, 4, 4, 8),
    max_attempts: int = 20,
    abort_siblings: bool = True,
) -> Exploration:
    recipe = ExploreRecipe(
        sampling=Sampling(temperature=1.0, max_tokens=8),
        max_attempts=max_attempts,
    )
    return explore(
        make_problems(count),
        pool,
        bank,
        verifier or ScriptedVerifier(),
        recipe,
        RolloutResources(waves=waves, abort_siblings=abort_siblings),
        seed=7,
        round=1,
        prompt=PlainPrompt(),
    )


def indices(exploration: Exploration) -> list[list[int]]:
    return [[a.sample_index for a in group.attempts] for group in exploration.groups]


def test_each_problem_stops_at_its_first_correct_attempt() -> None:
    found = run(ScriptedPool({"p0": [0], "p1": [3], "p2": []}), 3, max_attempts=5)
    assert indices(found) == [[0], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert [group.solved for group in found.groups] == [True, True, False]
    assert [group.early_stopped for group in found.groups] == [True, True, False]
    assert [rollout.text for rollout in found.selected] == ["good", "good"]
    assert found.summary() == {
        "problems": 3,
        "solved": 2,
        "attempts": 10,
        "truncated": 0,
        "tokens": 30,
    }


def test_attempt_rows_give_hand_counted_pass_rates() -> None:
    found = run(ScriptedPool({"p0": [0], "p1": [1], "p2": [], "p3": [0]}), 4, max_attempts=2)
    first, second = found.attempt_rows()
    assert (first["tried"], first["correct"], first["pass_rate"]) == (4, 2, 0.5)
    assert (second["tried"], second["correct"], second["pass_rate"]) == (2, 1, 0.5)
    assert [first["solved_so_far"], second["solved_so_far"]] == [0.5, 0.75]


@pytest.mark.parametrize("order_seed", range(12))
def test_the_result_does_not_depend_on_what_ends_first(order_seed: int) -> None:
    rng = random.Random(99)
    script = {f"p{n}": [i for i in range(20) if rng.random() < 0.15] for n in range(40)}
    wide = (20,) if order_seed % 2 else (1, 1, 2, 4, 4, 8)
    verifier = ScriptedVerifier(lag=order_seed % 3)
    found = run(ScriptedPool(script, order_seed), 40, verifier=verifier, waves=wide)
    for group in found.groups:
        hits = script[group.problem.id]
        last = hits[0] if hits else 19
        assert [a.sample_index for a in group.attempts] == list(range(last + 1))
        assert (group.selected.sample_index if group.selected else None) == (
            hits[0] if hits else None
        )


def test_neither_waves_nor_cut_siblings_change_what_is_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    script = {f"p{n}": [i for i in range(20) if (i + n) % 7 == 3] for n in range(20)} | {"p20": []}
    digests = set()
    for number, waves in enumerate([(1,), (1, 1, 2, 4, 4, 8), (20,)]):
        for abort_siblings in (True, False):
            pool = ScriptedPool(script, number)
            found = run(pool, 21, bank=MemoryBank(), waves=waves, abort_siblings=abort_siblings)
            version = f"{number}-{abort_siblings}"
            handle = publish_exploration(store, "explore", version, found, round=1, left=0)
            digests.add(handle.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("retry_unsolved", [True, False])
def test_a_pool_is_used_up_when_the_next_round_would_explore_nothing(
    retry_unsolved: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    recipe = PoolRecipe(buckets=(Bucket.NORMAL_MATH,), retry_unsolved=retry_unsolved)
    found = run(ScriptedPool({"p0": [0], "p1": []}), 2, max_attempts=2)
    handle = publish_exploration(store, "explore", "1", found, round=1, left=0)
    next_round = draw_problems(store, make_problems(2), recipe, [handle], seed=0).problems
    assert [problem.id for problem in next_round] == (["p1"] if retry_unsolved else [])
    assert pool_is_exhausted(store.root, handle, recipe) is (not next_round)


def test_one_by_one_draws_nothing_that_does_not_count() -> None:
    script = {f"p{n}": [n] for n in range(10)}
    pool = ScriptedPool(script)
    found = run(pool, 10, waves=(1,))
    assert len(pool.drawn) == sum(n + 1 for n in range(10)) == found.summary()["attempts"]


class FirstLook(Exception):
    """Ends an exploration at its first poll."""


def started_at_first(pool: ScriptedPool, count: int, **settings: Any) -> list[int]:
    """Sample indices of what runs when the pool is first polled."""

    def look(timeout_s: float = 0.25) -> list[Rollout]:
        started.extend(request.sample_index for request in pool.waiting.values())
        raise FirstLook

    started: list[int] = []
    pool.poll = look
    with pytest.raises(FirstLook):
        run(pool, count, **settings)
    return started


def test_places_that_would_stand_empty_draw_ahead_of_the_waves() -> None:
    assert started_at_first(ScriptedPool({}, capacity=8), 3) == [0, 0, 0, 1, 1, 1]
    assert started_at_first(ScriptedPool({}, capacity=4), 3) == [0, 0, 0, 1]
    assert started_at_first(ScriptedPool({}, capacity=8), 3, waves=(1,)) == [0, 0, 0]


def test_nothing_is_drawn_ahead_while_problems_wait() -> None:
    assert set(started_at_first(ScriptedPool({}, capacity=512), 600)) == {0}


def test_the_hardest_problems_are_the_first_to_be_drawn_ahead() -> None:
    bank, script = MemoryBank(), {f"p{n}": [19] for n in range(4)}
    run(ScriptedPool(script), 4, bank=bank, max_attempts=3, waves=(1,))
    bank.rows = {name: row for name, row in bank.rows.items() if row.problem_id == "p3"}
    started = started_at_first(ScriptedPool(script, capacity=6), 4, bank=bank)
    # Three failures of p3 are banked: two more run by its wave, and a third one ahead of it.
    assert sorted(started) == [0, 0, 0, 3, 4, 5]


def test_siblings_of_a_solved_problem_are_cut() -> None:
    pool = ScriptedPool({"p0": [0]}, capacity=64)
    found = run(pool, 1, waves=(20,))
    assert found.tally.aborted + len(pool.drawn) >= 20
    assert pool.pending() == 0


def test_siblings_that_are_not_cut_run_out_into_the_bank() -> None:
    bank, pool = MemoryBank(), ScriptedPool({"p0": [0]}, capacity=64)
    found = run(pool, 1, bank=bank, waves=(20,), abort_siblings=False)
    assert indices(found) == [[0]]
    assert len(pool.drawn) == len(bank.rows) == 20


def test_a_second_exploration_draws_nothing_and_finds_the_same() -> None:
    bank, script = MemoryBank(), {f"p{n}": [n] for n in range(30)}
    first = run(ScriptedPool(script, 1), 30, bank=bank)
    again = ScriptedPool(script, 2)
    second = run(again, 30, bank=bank, verifier=ScriptedVerifier())
    assert again.drawn == []
    assert second.tally.generated_tokens == 0
    assert second.to_rows() == first.to_rows()
    assert second.selected == first.selected


def test_siblings_come_from_the_bank_in_small_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    script = {f"p{n}": [9] for n in range(60)}
    found = run(ScriptedPool(script, capacity=64), 60, bank=RolloutBank(store))
    handle = publish_exploration(store, "explore", "1", found, round=1, left=0)
    whole, asked = RolloutBank.get, []

    def get(bank: RolloutBank, ids: Iterable[str]) -> dict[str, Rollout]:
        asked.append(len(list(ids)))
        return whole(bank, ids)

    monkeypatch.setattr(RolloutBank, "get", get)
    siblings, lost = read_siblings(store, handle)
    assert max(asked) <= 256 < sum(asked) == len(siblings) == 600
    assert lost == {"not_judged": 0}
    names = [attempt.rollout_id for group in found.groups for attempt in group.attempts]
    banked = whole(RolloutBank(store), names)
    assert siblings == [replace(banked[name], token_ids=(), logprobs=()) for name in names]


def test_a_sibling_that_the_bank_has_lost_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = run(ScriptedPool({"p0": [1]}), 1, bank=MemoryBank())
    handle = publish_exploration(store, "explore", "1", found, round=1, left=0)
    with pytest.raises(MissingError, match=found.groups[0].attempts[0].rollout_id):
        read_siblings(store, handle)


@pytest.mark.parametrize("logprobs", [True, False])
def test_selected_rollouts_are_read_without_what_nobody_looks_at(
    tmp_path: Path, logprobs: bool
) -> None:
    store = Store(tmp_path)
    found = run(ScriptedPool({"p0": [1], "p1": [0]}), 3)
    handle = publish_exploration(store, "explore", "1", found, round=1, left=0)
    bare = [replace(one, token_ids=(), logprobs=()) for one in found.selected]
    with_logprobs = [replace(one, logprobs=(-1.0, -1.0, -1.0)) for one in bare]
    read = read_selected(store, handle, logprobs=logprobs)
    assert read == (with_logprobs if logprobs else bare)
    for row in read_exploration(store, handle).samples:
        assert {"id", "text", "outcome"} < set(row)
        assert not {"token_ids", "logprobs"} & set(row)


class RoughPool(ScriptedPool):
    """Completions that no shard holds as they are: lone surrogates, log-probs beyond float32."""

    def _finish(self, request: RolloutRequest) -> Rollout:
        rollout = super()._finish(request)
        text = rollout.text if rollout.text == "good" else "\ud800"
        return replace(rollout, text=text, logprobs=(-0.1, -1 / 3, -2e-9))


class MutePool(ScriptedPool):
    """An endpoint, which tells no tokens."""

    def _finish(self, request: RolloutRequest) -> Rollout:
        return replace(super()._finish(request), token_ids=(), logprobs=())


def test_a_selected_rollout_takes_eight_bytes_a_token_until_it_is_published() -> None:
    (one,) = run(ScriptedPool({"p0": [1]}), 1).selected
    assert memoryview(one.token_ids).nbytes + memoryview(one.logprobs).nbytes == 8 * 3


@pytest.mark.parametrize("pool", [ScriptedPool, RoughPool, MutePool])
def test_selected_rollouts_are_published_as_the_banks_own_rows(
    tmp_path: Path, pool: type[ScriptedPool]
) -> None:
    store = Store(tmp_path)
    found = run(pool({"p0": [1], "p2": [0]}), 3, bank=RolloutBank(store))
    handle = publish_exploration(store, "explore", "1", found, round=1, left=0)
    banked = RolloutBank(store).get(one.id for one in found.selected)
    rows = [banked[one.id].to_row() for one in found.selected]
    assert store.read_bytes(handle, "selected.parquet") == table_bytes(rows)


def test_what_was_drawn_and_what_comes_from_the_bank_are_the_same_bytes(tmp_path: Path) -> None:
    script = {f"p{n}": [n % 3] for n in range(12)}
    first, second = (
        run(RoughPool(script, seed), 12, bank=RolloutBank(Store(tmp_path))) for seed in (1, 2)
    )
    assert second.tally.generated_rollouts == 0
    assert second.selected == first.selected
    assert second.to_rows() == first.to_rows()


@pytest.mark.parametrize("crash_after", [0, 1, 7, 40])
def test_after_a_crash_only_what_is_missing_is_drawn(crash_after: int) -> None:
    script = {f"p{n}": [n % 7] for n in range(30)}
    undisturbed = run(ScriptedPool(script), 30, bank=MemoryBank(), waves=(1,))
    bank = MemoryBank()
    with pytest.raises(KeyboardInterrupt):
        run(ScriptedPool(script, 3, crash_after=crash_after), 30, bank=bank, waves=(1,))
    kept = len(bank.rows)
    pool = ScriptedPool(script, 4)
    resumed = run(pool, 30, bank=bank, waves=(1,))
    assert resumed.to_rows() == undisturbed.to_rows()
    assert len(pool.drawn) == undisturbed.summary()["attempts"] - kept
    assert len(bank.appended) == len(set(bank.appended))


class EndingPool(ScriptedPool):
    """Hands out all that was asked for, and can not go on after that."""

    def poll(self, timeout_s: float = 0.25) -> list[Rollout]:
        if not self.waiting:
            raise RolloutError("worker rollout-0 failed 4 times in a row")
        return [self._finish(self.waiting.pop(identity)) for identity in list(self.waiting)]

    def pending(self) -> int:
        return 1


def test_what_ended_and_has_no_verdict_yet_outlives_the_end_of_its_campaign(
    tmp_path: Path,
) -> None:
    bank, script = RolloutBank(Store(tmp_path)), {f"p{n}": [0] for n in range(5)}
    with pytest.raises(RolloutError):
        run(EndingPool(script), 5, bank=bank, verifier=BusyVerifier(), waves=(1,))
    assert [row["outcome"] for row in bank.rows()] == [""] * 5
    pool = ScriptedPool(script)
    found = run(pool, 5, bank=bank)
    assert (pool.drawn, len(found.solved)) == ([], 5)
    assert [row["outcome"] for row in RolloutBank(Store(tmp_path)).rows()] == ["correct"] * 5


def test_in_a_young_campaign_a_rollout_does_not_wait_long_for_its_verdict() -> None:
    bank = MemoryBank()
    safe: list[int] = []

    class Lingering(EndingPool):
        def poll(self, timeout_s: float = 0.25) -> list[Rollout]:
            if not self.waiting and len(safe) < 4:
                time.sleep(0.05)
                safe.append(len(bank.appended))
                return []
            return super().poll(timeout_s)

    with pytest.raises(RolloutError):
        run(Lingering({}), 4, bank=bank, verifier=BusyVerifier(), waves=(1,))
    assert safe[-1] == 4


def test_a_rollout_whose_verdict_is_late_is_banked_twice_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = {f"p{n}": [n % 3] for n in range(8)}
    prompt = run(ScriptedPool(script), 8, bank=MemoryBank())
    monkeypatch.setattr(search, "JUDGED_WITHIN_S", 0.0)
    bank = RolloutBank(Store(tmp_path))
    late = run(ScriptedPool(script), 8, bank=bank, verifier=ScriptedVerifier(lag=2))
    assert late.to_rows() == prompt.to_rows()
    rows = bank.rows()
    assert len(rows) == len({row["id"] for row in rows}) == late.tally.generated_rollouts
    assert all(row["outcome"] for row in rows)


def test_verdicts_of_an_older_verifier_are_given_again_and_not_trusted() -> None:
    bank = MemoryBank()
    run(ScriptedPool({"p0": [2]}), 1, bank=bank)
    for identity, rollout in bank.rows.items():
        bank.rows[identity] = replace(rollout, outcome="wrong", verifier_version="older")
    verifier, pool = ScriptedVerifier(), ScriptedPool({"p0": [2]})
    found = run(pool, 1, bank=bank, verifier=verifier)
    assert found.groups[0].solved
    assert pool.drawn == []
    assert verifier.count >= 3


def test_a_verifier_sees_the_thought_that_the_prompt_has_opened() -> None:
    bank = MemoryBank()
    sampling = Sampling(temperature=1.0, max_tokens=8)
    explore(
        make_problems(1),
        ScriptedPool({}),
        bank,
        ScriptedVerifier(),
        ExploreRecipe(sampling=sampling, max_attempts=1),
        RolloutResources(),
        seed=7,
        round=1,
        prompt="still-3-short",
    )
    (rollout,) = bank.rows.values()
    assert (rollout.text, rollout.extracted) == ("bad", "<think>bad")


def test_two_problems_with_one_id_are_refused() -> None:
    problem = make_problems(1)[0]
    with pytest.raises(DataError, match="same id"):
        explore(
            [problem, problem],
            ScriptedPool({}),
            None,
            ScriptedVerifier(),
            ExploreRecipe(sampling=Sampling(max_tokens=8)),
            RolloutResources(),
            seed=0,
            round=0,
            prompt=PlainPrompt(),
        )


def test_seeds_differ_between_rounds_problems_and_attempts_and_not_between_runs() -> None:
    def seeds(round: int) -> list[int]:
        bank = MemoryBank()
        explore(
            make_problems(3),
            ScriptedPool({}),
            bank,
            ScriptedVerifier(),
            ExploreRecipe(sampling=Sampling(temperature=1.0, max_tokens=8), max_attempts=4),
            RolloutResources(),
            seed=1,
            round=round,
            prompt=PlainPrompt(),
        )
        return sorted(rollout.seed for rollout in bank.rows.values())

    assert seeds(1) == seeds(1)
    assert len(set(seeds(1)) | set(seeds(2))) == 24


def test_a_sample_has_exactly_n_attempts_whatever_their_outcome() -> None:
    bank, pool = MemoryBank(), ScriptedPool({"p0": [0, 2], "p1": [1]})
    result = sample(
        make_problems(2),
        pool,
        bank,
        ScriptedVerifier(),
        Sampling(temperature=1.0, max_tokens=8),
        num_samples=4,
        prompt=PlainPrompt(),
    )
    assert [group.num_correct for group in result.groups] == [2, 1]
    assert [[a.sample_index for a in group.attempts] for group in result.groups] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
    ]


def test_the_requests_of_a_finished_problem_are_forgotten() -> None:
    pool, built = ScriptedPool({f"p{n}": [n] for n in range(5)}), []
    build = search.search_builder(
        pool,
        PlainPrompt(),
        Sampling(temperature=0.0, max_tokens=8),
        max_attempts=6,
        seed=0,
        round=0,
        until_correct=True,
    )

    def remembered(problem: Problem) -> search.ProblemSearch:
        built.append(build(problem))
        assert len(built[-1].requests) == 6
        return built[-1]

    problems = make_problems(6)
    campaign = search.Campaign(
        stage="test",
        pool=pool,
        verifier=ScriptedVerifier(),
        bank=None,
        owner="test",
        build=remembered,
        in_flight_limit=lambda finished: 2,
        idle_limit=lambda finished: 2,
        abort_siblings=True,
        progress=None,
    )
    found = campaign.run([*problems, replace(problems[0], id="twin")])
    assert [len(each.counted()) for each in found] == [1, 2, 3, 4, 5, 6, 1]
    assert [each.requests for each in (*found, *built)] == [()] * 14


def counted(*, keeps_texts: bool) -> SampleResult:
    return sample(
        make_problems(30),
        ScriptedPool({f"p{n}": [0, 2] for n in range(30)}),
        None,
        ScriptedVerifier(),
        Sampling(temperature=1.0, max_tokens=8),
        num_samples=8,
        prompt=PlainPrompt(),
        keeps_texts=keeps_texts,
    )


def test_who_only_counts_keeps_no_text_and_counts_the_same() -> None:
    whole, bare = counted(keeps_texts=True), counted(keeps_texts=False)
    assert [len(group.rollouts) for group in whole.groups] == [8] * 30
    assert [group.rollouts for group in bare.groups] == [()] * 30
    rate = PassRate(num_correct=2, num_attempts=8)
    assert measured_rates(bare) == measured_rates(whole) == {f"p{n}": rate for n in range(30)}


def test_greedy_samples_of_other_seeds_and_rounds_come_from_the_bank() -> None:
    bank = MemoryBank()

    def greedy(seed: int, round: int) -> ScriptedPool:
        pool = ScriptedPool({})
        sample(
            make_problems(3),
            pool,
            bank,
            ScriptedVerifier(),
            Sampling(temperature=0.0, max_tokens=8),
            seed=seed,
            round=round,
            prompt=PlainPrompt(),
        )
        return pool

    assert len(greedy(1, 1).drawn) == 3
    assert greedy(2, 5).drawn == []


@pytest.mark.parametrize("bank", [None, MemoryBank()], ids=["no bank", "bank"])
def test_one_problem_under_two_ids_is_drawn_once_and_answers_both(bank: MemoryBank | None) -> None:
    (one, other) = make_problems(2)
    twin = replace(one, id="twin")
    pool = ScriptedPool({"p0": [0], "twin": [0]})
    result = sample(
        [one, other, twin],
        pool,
        bank,
        ScriptedVerifier(),
        Sampling(temperature=0.0, max_tokens=8),
        prompt=PlainPrompt(),
    )
    assert [group.problem.id for group in result.groups] == ["p0", "p1", "twin"]
    assert [group.num_correct for group in result.groups] == [1, 0, 1]
    assert len(pool.drawn) == 2


def test_tools_are_part_of_a_rollouts_identity_and_their_absence_is_not() -> None:
    bare = RolloutRequest(
        problem_id="p0",
        problem_digest="problem",
        prompt="1+1?",
        prompt_digest="prompt",
        policy_digest="policy",
        policy_version=0,
        sampling=Sampling(max_tokens=8),
        sample_index=2,
        seed=7,
        engine_build="scripted 1",
    )
    settings = canonical(bare.sampling)
    assert bare.id == digest(["policy", "problem", "prompt", settings, 2, 7, "scripted 1"])
    identities = {replace(bare, tools=tools).id for tools in [(), ("python 3.12",), ("search 1",)]}
    assert len(identities) == 3
