"""The pool under failures: real Ray actors, an engine that dies, hangs or fails on command."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from still_core.errors import RolloutError
from still_core.rollout.cluster import connect
from still_core.rollout.pool import RolloutPool
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest, Sampling
from tests.fixtures.faulty_engine import FaultyEngine, drawn, expected_text, write_faults

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    import ray

    ours = not ray.is_initialized()
    connect()
    yield
    if ours:
        ray.shutdown()


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def make_model(directory: Path) -> Path:
    directory.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (directory / name).write_text(json.dumps({}))
    return directory


def make_pool(model_dir: Path, *, policy: str = "policy-a", **resources: object) -> RolloutPool:
    options = {
        "num_actors": 2,
        "cpus_per_actor": 0.1,
        "max_num_seqs": 8,
        "stall_deadline_s": 1.5,
        "straggler_s": 60.0,
        **resources,
    }
    return RolloutPool(
        model_dir,
        EngineRecipe(kind="transformers"),
        RolloutResources.model_validate(options),
        policy_digest=policy,
        factory=FaultyEngine,
    )


def make_requests(
    pool: RolloutPool, problems: int, attempts: int, *, first: int = 0
) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            problem_id=f"p{problem}",
            problem_digest=f"d{problem}",
            prompt=f"{problem}+1",
            prompt_digest="plain",
            policy_digest=pool.policy_digest,
            policy_version=pool.policy_version,
            sampling=Sampling(max_tokens=8),
            sample_index=attempt,
            seed=1000 * problem + attempt,
            engine_build=pool.engine_build,
        )
        for problem in range(first, first + problems)
        for attempt in range(attempts)
    ]


def check_each_once(pool: RolloutPool, requests: list[RolloutRequest]) -> None:
    rollouts = list(pool.generate(requests))
    texts = {rollout.id: rollout.text for rollout in rollouts}
    assert len(rollouts) == len(texts) == len(requests)
    assert texts == {request.id: expected_text(request) for request in requests}
    assert pool.pending() == 0


def kill_counted(model_dir: Path, kills: int) -> None:
    rng = random.Random(5)
    kinds = ("kill", "late-kill")
    write_faults(
        model_dir, [f"{kinds[n % 2]}:{rng.randint(2, 12)}" for n in range(kills)] + ["none"] * 2
    )
    with make_pool(model_dir) as pool:
        check_each_once(pool, make_requests(pool, 40 * kills, 2))
        restarts = sum(worker.restarts for worker in pool.health())
    assert restarts == kills
    # A completion is drawn again only if it was lost with its worker.
    repeats = Counter(Counter(drawn(model_dir)).values())
    assert set(repeats) <= {1, 2, 3}


def test_each_sample_comes_exactly_once_though_actors_are_killed(model_dir: Path) -> None:
    kill_counted(model_dir, 6)


@pytest.mark.slow
def test_each_sample_comes_exactly_once_through_a_hundred_kills(model_dir: Path) -> None:
    kill_counted(model_dir, 100)


def test_a_hanging_actor_is_replaced_and_the_place_where_it_hung_is_named(
    model_dir: Path,
) -> None:
    write_faults(model_dir, ["hang:3", "none", "none"])
    with make_pool(model_dir) as pool:
        check_each_once(pool, make_requests(pool, 30, 4))
        failures = [worker.last_failure for worker in pool.health() if worker.restarts]
    assert len(failures) == 1
    assert "no engine step for" in failures[0]
    assert "faulty_engine.py" in failures[0]
    assert "_strike" in failures[0]


def test_a_hanging_actor_is_replaced_also_where_its_caller_waits_long(model_dir: Path) -> None:
    write_faults(model_dir, ["hang:1", "none"])
    with make_pool(model_dir, num_actors=1) as pool:
        pool.submit(make_requests(pool, 12, 1))
        rollouts = []
        until = time.monotonic() + 60
        while pool.pending() and time.monotonic() < until:
            rollouts += pool.poll(timeout_s=5.0)
        assert [worker.restarts for worker in pool.health()] == [1]
    assert len(rollouts) == 12


def test_a_frozen_actor_is_ended_and_its_requests_go_to_others(model_dir: Path) -> None:
    write_faults(model_dir, ["none"] * 3)
    with make_pool(model_dir) as pool:
        requests = make_requests(pool, 400, 4)
        pool.submit(requests)
        rollouts = pool.poll(timeout_s=30)
        while not all(worker.pid and worker.in_flight for worker in pool.health()):
            rollouts += pool.poll()
        frozen = pool.health()[0].pid
        os.kill(frozen, signal.SIGSTOP)
        while pool.pending():
            rollouts += pool.poll()
        failures = [worker.last_failure for worker in pool.health() if worker.restarts]
        assert not psutil.pid_exists(frozen)
    assert sorted(rollout.id for rollout in rollouts) == sorted(one.id for one in requests)
    assert len(failures) == 1
    assert "stuck in an unknown place" in failures[0]


def test_a_failing_step_is_retried_on_a_new_worker_with_its_cause_kept(model_dir: Path) -> None:
    write_faults(model_dir, ["raise:2", "raise:2", "none", "none"])
    with make_pool(model_dir) as pool:
        check_each_once(pool, make_requests(pool, 30, 4))
        failures = [worker.last_failure for worker in pool.health() if worker.restarts]
    assert all("RuntimeError" in failure for failure in failures)
    assert all("planned failure of a step" in failure for failure in failures)


def test_a_constructor_that_always_fails_ends_the_run_with_its_cause(model_dir: Path) -> None:
    write_faults(model_dir, ["start"] * 20)
    cause = r"failed 3 times in a row.*planned failure"
    pool = make_pool(model_dir, num_actors=1, max_restarts=2)
    with pool, pytest.raises(RolloutError, match=cause):
        list(pool.generate(make_requests(pool, 1, 1)))
    assert len(list((model_dir / "faults").glob(".taken*"))) == 3


def give_one_up(pool: RolloutPool) -> None:
    """Draw until one worker has failed to start too often."""
    until = time.monotonic() + 60
    for first in itertools.count(step=100):
        check_each_once(pool, make_requests(pool, 100, 4, first=first))
        if "given up" in [worker.phase for worker in pool.health()]:
            return
        assert time.monotonic() < until


def test_a_place_where_no_engine_starts_is_given_up_and_the_others_draw_what_it_owed(
    model_dir: Path,
) -> None:
    write_faults(model_dir, ["none"] + ["start"] * 9)
    with make_pool(model_dir, max_restarts=2) as pool:
        give_one_up(pool)
        lost, left = sorted(pool.health(), key=lambda worker: -worker.restarts)
        assert (lost.phase, lost.restarts, lost.in_flight) == ("given up", 3, 0)
        assert "planned failure of the constructor" in lost.last_failure
        assert left.restarts == 0
        assert pool.capacity == 8
        check_each_once(pool, make_requests(pool, 20, 4, first=-100))


def test_a_place_that_was_given_up_is_tried_again_with_the_next_weights(
    model_dir: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other")
    write_faults(model_dir, ["none"] + ["start"] * 9)
    with make_pool(model_dir, max_restarts=0) as pool:
        give_one_up(pool)
        pool.load_weights(other, policy_digest="policy-b", policy_version=1)
        check_each_once(pool, make_requests(pool, 400, 4))
        assert pool.capacity == 16
        assert "given up" not in [worker.phase for worker in pool.health()]


def test_engines_that_die_at_their_work_end_the_run_though_others_live(model_dir: Path) -> None:
    write_faults(model_dir, ["raise:1"] * 40)
    cause = r"failed 3 times in a row.*planned failure of a step"
    pool = make_pool(model_dir, max_restarts=2)
    # Each completion takes four steps, so none ends before its engine does.
    requests = [r for r in make_requests(pool, 40, 4) if r.seed % 4 == 3]
    with pool, pytest.raises(RolloutError, match=cause):
        list(pool.generate(requests))


def test_engines_that_start_nowhere_end_the_run(model_dir: Path) -> None:
    write_faults(model_dir, ["start"] * 20)
    cause = r"failed 2 times in a row.*planned failure of the constructor"
    pool = make_pool(model_dir, max_restarts=1)
    with pool, pytest.raises(RolloutError, match=cause):
        list(pool.generate(make_requests(pool, 4, 1)))
    assert len(list((model_dir / "faults").glob(".taken*"))) == 4


def test_an_actor_that_gets_no_cpu_is_explained(model_dir: Path) -> None:
    pool = make_pool(
        model_dir, num_actors=1, cpus_per_actor=64, start_deadline_s=1.0, max_restarts=0
    )
    with pool, pytest.raises(RolloutError, match=r"no CPU or GPU within 1 s: wants 64"):
        list(pool.generate(make_requests(pool, 1, 1)))


def test_a_restarted_worker_holds_the_current_weights_not_its_first(
    model_dir: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other")
    with make_pool(model_dir, num_actors=1) as pool:
        check_each_once(pool, make_requests(pool, 2, 2))
        pool.load_weights(other, policy_digest="policy-b", policy_version=1)
        write_faults(other, ["none"])
        check_each_once(pool, make_requests(pool, 2, 2))
        import os
        import signal

        os.kill(pool.health()[0].pid, signal.SIGKILL)
        requests = make_requests(pool, 4, 2, first=10)
        check_each_once(pool, requests)
        assert pool.health()[0].restarts == 1
    assert {request.id for request in requests} <= set(drawn(other))
    assert expected_text(requests[0]).startswith("policy-b")


def test_an_engine_may_take_as_long_to_load_weights_as_to_start(
    model_dir: Path, tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other")
    (other / "seconds-to-load").write_text("5")
    with make_pool(model_dir, num_actors=1, stall_deadline_s=2.5) as pool:
        check_each_once(pool, make_requests(pool, 2, 2))
        pool.load_weights(other, policy_digest="policy-b")
        check_each_once(pool, make_requests(pool, 2, 2))
        assert [worker.restarts for worker in pool.health()] == [0]


def test_a_worker_is_not_late_while_nobody_asks_it(model_dir: Path) -> None:
    # Some are done in the first step; the others come while nobody asks.
    write_faults(model_dir, ["pause:2"])
    with make_pool(model_dir, num_actors=1, stall_deadline_s=1.0) as pool:
        # All that it may hold at once, so that nothing is left to send after the first answer.
        pool.submit(make_requests(pool, 12, 1))
        rollouts = pool.poll(timeout_s=30)
        assert pool.pending()
        time.sleep(2.5)
        while pool.pending():
            rollouts += pool.poll(timeout_s=0.0)
            time.sleep(0.01)
        assert [worker.restarts for worker in pool.health()] == [0]
        time.sleep(0.5)
        pool.submit(make_requests(pool, 8, 1, first=12))
        pool.poll(timeout_s=0.0)
        # Nor is it given more time than others for having been idle.
        assert all(worker.last_step_s >= 0 for worker in pool.health())
    assert len(rollouts) == 12


def test_a_worker_is_not_late_by_an_answer_that_lay_unread(model_dir: Path) -> None:
    write_faults(model_dir, ["hang:1", "none"])
    with make_pool(model_dir, num_actors=1, stall_deadline_s=3.0) as pool:
        pool.submit(make_requests(pool, 12, 1))
        while not pool.health()[0].pid:
            pool.poll(timeout_s=0.05)
        pool.poll(timeout_s=0.0)
        time.sleep(4.5)
        rollouts = pool.poll(timeout_s=5.0)
        assert [worker.restarts for worker in pool.health()] == [0]
        # Asked again, it does not go on: now it is late.
        while pool.pending():
            rollouts += pool.poll()
        assert [worker.restarts for worker in pool.health()] == [1]
    assert len(rollouts) == 12


def test_a_worker_that_starts_while_nobody_asks_is_not_late(model_dir: Path) -> None:
    write_faults(model_dir, ["late:2"])
    with make_pool(model_dir, num_actors=1, start_deadline_s=3.0) as pool:
        pool.submit(make_requests(pool, 12, 1))
        time.sleep(6.0)
        rollouts = pool.poll(timeout_s=0.0)
        assert pool.health()[0].phase == "starting"
        while pool.pending():
            rollouts += pool.poll()
        assert [worker.restarts for worker in pool.health()] == [0]
    assert len(rollouts) == 12


def test_what_has_finished_comes_out_before_the_failure_that_ends_the_pool(
    model_dir: Path,
) -> None:
    # Eight at once, each done after one step; the engine fails in the second, within 2 ms.
    write_faults(model_dir, ["raise:2"])
    finished = set()

    def draw() -> None:
        pool.submit(make_requests(pool, 24, 1))
        while pool.pending():
            finished.update(rollout.id for rollout in pool.poll())

    with make_pool(model_dir, num_actors=1, max_restarts=0) as pool:
        with pytest.raises(RolloutError, match="planned failure"):
            draw()
        assert pool.pending() == 0
    assert len(finished) == 8


def test_requests_for_other_weights_are_refused(model_dir: Path, tmp_path: Path) -> None:
    pool = make_pool(model_dir)
    stale = make_requests(pool, 1, 1)
    pool.load_weights(make_model(tmp_path / "other"), policy_digest="policy-b")
    with pytest.raises(RolloutError, match="another weights"):
        pool.submit(stale)


def test_a_straggler_is_also_given_to_an_idle_worker(model_dir: Path) -> None:
    # The first worker hangs, and its deadline is far: only the other worker can end the run.
    write_faults(model_dir, ["hang:1", "none"])
    with make_pool(model_dir, stall_deadline_s=300.0, straggler_s=0.5) as pool:
        started = time.monotonic()
        check_each_once(pool, make_requests(pool, 10, 2))
        assert time.monotonic() - started < 30
        assert all(worker.restarts == 0 for worker in pool.health())


def test_an_idle_worker_takes_over_what_waits_inside_another_engine(model_dir: Path) -> None:
    # The first worker stops stepping at once, with half of its requests not begun.
    write_faults(model_dir, ["hang:1", "none"])
    with make_pool(model_dir, stall_deadline_s=300.0, max_num_seqs=4) as pool:
        pool.submit(make_requests(pool, 12, 1))
        finished: list[str] = []
        deadline = time.monotonic() + 20
        while len(finished) < 8 and time.monotonic() < deadline:
            finished.extend(rollout.id for rollout in pool.poll())
        stuck = next(worker for worker in pool._workers if len(worker.in_flight) == 4)
        assert not stuck.queue
    assert len(finished) == len(set(finished)) == 8


def test_cancelled_requests_never_come_out(model_dir: Path) -> None:
    with make_pool(model_dir) as pool:
        requests = make_requests(pool, 50, 4)
        pool.submit(requests)
        first = pool.poll(5.0)
        dropped = [r.id for r in requests if r.sample_index > 1]
        pool.cancel(dropped)
        rest = []
        while pool.pending():
            rest.extend(pool.poll())
    ids = [rollout.id for rollout in rest]
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(dropped)
    assert {r.id for r in requests if r.sample_index <= 1} <= set(ids) | {r.id for r in first}


def test_attempts_at_one_problem_stay_on_one_worker(model_dir: Path) -> None:
    with make_pool(model_dir) as pool:
        requests = make_requests(pool, 16, 4)
        pool.submit(requests)
        homes = {}
        for worker in pool._workers:
            for identity in [*worker.queue, *worker.in_flight]:
                homes.setdefault(pool._requests[identity].problem_digest, set()).add(worker.name)
    assert all(len(names) == 1 for names in homes.values())
    assert len({name for names in homes.values() for name in names}) == 2
