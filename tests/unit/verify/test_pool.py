"""The pool: typed verdicts, a deadline from outside, any caller."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from still_core.errors import ConfigError, VerifierError
from still_core.problems.problem import AnswerKind
from still_core.verify import VERIFIER_VERSION, Answer, Conventions, Outcome, VerifierPool


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool() as pool:
        yield pool


def answer(gold: str, pred: str, kind: AnswerKind = AnswerKind.MATH) -> Answer:
    return Answer(id="x", gold=gold, pred=pred, kind=kind)


@pytest.mark.parametrize(
    ("gold", "pred", "outcome"),
    [
        ("1/2", r"\boxed{0.5}", Outcome.CORRECT),
        ("1/2", r"<think>\boxed{0.5}</think>\boxed{0.6}", Outcome.WRONG),
        ("1/2", r"<think>\boxed{0.5}", Outcome.NO_ANSWER),
        ("1/2", r"\boxed{}", Outcome.NO_ANSWER),
        ("x^2+2x+1", r"\boxed{(x+1)^2}", Outcome.CORRECT),
        ("2", "7" * 100_000, Outcome.UNPARSABLE),
        ("", r"\boxed{}", Outcome.ERROR),
    ],
)
def test_every_kind_of_outcome_is_typed(
    pool: VerifierPool, gold: str, pred: str, outcome: Outcome
) -> None:
    assert pool.verify(answer(gold, pred)).outcome is outcome


@pytest.mark.parametrize(
    ("kind", "gold", "pred", "boxed"),
    [
        (AnswerKind.MATH, "42", "42", r"\boxed{42}"),
        (AnswerKind.MATH, "42", "The answer is 42.", r"So $\boxed{42}$."),
        (AnswerKind.MATH, "42", "#### 42", r"<think>42</think> \boxed{42}"),
        (AnswerKind.CHOICE, "B", "B", r"\boxed{B}"),
        (AnswerKind.TEXT, "a knave", "knave", r"\boxed{knave}"),
    ],
)
def test_where_unboxed_is_never_an_answer_counts_inside_a_box_alone(
    pool: VerifierPool, kind: AnswerKind, gold: str, pred: str, boxed: str
) -> None:
    assert pool.verify(answer(gold, pred, kind)).outcome is Outcome.CORRECT
    with VerifierPool(conventions=Conventions(unboxed="never")) as strict:
        verdict = strict.verify(answer(gold, pred, kind))
        assert (verdict.outcome, verdict.rule) == (Outcome.NO_ANSWER, "no_box")
        assert strict.verify(answer(gold, boxed, kind)).outcome is Outcome.CORRECT


def test_settings_that_may_judge_otherwise_mark_the_version(pool: VerifierPool) -> None:
    with VerifierPool(workers=2, conventions=Conventions()) as same:
        assert same.version == pool.version == VERIFIER_VERSION
    with (
        VerifierPool(conventions=Conventions(rounding_digits=0)) as exact,
        VerifierPool(deadline_s=9.0) as patient,
    ):
        versions = {VERIFIER_VERSION, exact.version, patient.version}
        assert len(versions) == 3
        verdict = exact.verify(Answer(id="a", gold=r"\frac{1}{3}", pred="0.33333"))
        assert (verdict.outcome, verdict.verifier_version) == (Outcome.WRONG, exact.version)


def test_asyncio_and_threads_get_the_same_verdicts_as_the_main_thread(pool: VerifierPool) -> None:
    answers = [answer(f"{n}+x", f"x+{n % 7}") for n in range(40)]
    serial = [pool.verify(a).outcome for a in answers]

    async def gather() -> list[Outcome]:
        return [v.outcome for v in await asyncio.gather(*(pool.averify(a) for a in answers))]

    assert asyncio.run(gather()) == serial
    found: dict[int, list[Outcome]] = {}
    threads = [
        threading.Thread(
            target=lambda i=i: found.update({i: [pool.verify(a).outcome for a in answers]})
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == serial for i in range(8))


def test_verify_many_keeps_input_order_and_reports_progress(pool: VerifierPool) -> None:
    seen: list[int] = []
    answers = [answer(str(n % 3), str(n % 2)) for n in range(250)]
    verdicts = pool.verify_many(answers, progress=lambda p: seen.append(p.done))
    assert [v.outcome is Outcome.CORRECT for v in verdicts] == [n % 3 == n % 2 for n in range(250)]
    assert seen == [100, 200, 250]


def test_a_killed_worker_is_an_error_and_the_next_answer_is_judged() -> None:
    with VerifierPool() as pool:
        assert pool.verify(answer("a+b", "b+a")).outcome is Outcome.CORRECT
        (pid,) = pool.worker_pids()
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        first = pool.verify(answer("a+c", "c+a"))
        second = pool.verify(answer("a+d", "d+a"))
    assert first.outcome in (Outcome.ERROR, Outcome.CORRECT)
    assert second.outcome is Outcome.CORRECT


def test_closing_leaves_no_process_behind_and_refuses_further_answers() -> None:
    pool = VerifierPool()
    pool.verify(answer("a+b", "b+a"))
    (pid,) = pool.worker_pids()
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(VerifierError, match="closed"):
        pool.verify(answer("a", "b"))


def test_settings_out_of_range_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="workers"):
        VerifierPool(workers=0)
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="finite"):
            VerifierPool(deadline_s=seconds)
        with pytest.raises(ConfigError, match="finite"):
            VerifierPool(code_deadline_s=seconds)


def test_a_worker_dies_with_the_process_that_owns_it() -> None:
    script = (
        "import os, sys\n"
        "from still_core.verify import Answer, VerifierPool\n"
        "pool = VerifierPool()\n"
        "pool.verify(Answer(id='a', gold='a+b', pred='b+a'))\n"
        "print(pool.worker_pids()[0], flush=True)\n"
        "os._exit(1)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60
    )
    pid = int(done.stdout)
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}/cmdline").exists()
            or not Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            return
        time.sleep(0.05)
    raise AssertionError(f"worker {pid} outlived its owner")


def test_an_error_inside_the_verifier_is_an_error_and_never_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_worker.py").write_text(
        "from still_core.verify import judging, worker\n"
        "import sys\n"
        "def broken(request):\n    raise KeyError('a bug')\n"
        "judging.judge_request = broken\n"
        "worker.serve(int(sys.argv[1]), int(sys.argv[2]))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with VerifierPool(worker_module="broken_worker") as pool:
        verdict = pool.verify(answer("a+b", "b+a"))
    assert (verdict.outcome, verdict.rule) == (Outcome.ERROR, "raised:KeyError")
    assert not verdict.outcome.is_judged()


def test_workers_are_replaced_after_their_share_of_answers() -> None:
    with VerifierPool(memory_mb=256, recycle_after=3) as pool:
        for n in range(8):
            assert pool.verify(answer(f"a+{n}", f"{n}+a")).outcome is Outcome.CORRECT
        assert len(pool.worker_pids()) <= 1
