"""Hostile answers: in time, within memory, never rewarded, never run; a weak verifier fails."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from still_core.problems.problem import AnswerKind
from still_core.verify import Answer, Outcome, VerifierPool

DEADLINE_S = 1.0
ALLOWED_S = DEADLINE_S + 0.2


def offences(
    pool: VerifierPool, cases: Iterable[str], gold: str, canary: Path, *, by_caller: bool = False
) -> list[str]:
    """What went wrong, one line per case: late, rewarded, or run.

    Late is by the verdict's own clock, or `by_caller`, who also waits for a worker to start in
    place of a killed one: on a loaded machine that says more of the load than of the pool.
    """
    found: list[str] = []
    # Starts the worker, and has it import SymPy.
    pool.verify(Answer(id="first", gold="x", pred=r"\gcd(x^2, xy)"))
    for case in cases:
        started = time.perf_counter()
        verdict = pool.verify(Answer(id="hostile", gold=gold, pred=case))
        waited = time.perf_counter() - started
        seconds = waited if by_caller else min(waited, verdict.seconds)
        if seconds > ALLOWED_S:
            found.append(f"late by {seconds - DEADLINE_S:.2f} s: {case[:80]!r}")
        if verdict.outcome is Outcome.CORRECT:
            found.append(f"rewarded by {verdict.rule}: {case[:80]!r}")
        if verdict.outcome is Outcome.ERROR:
            found.append(f"broke the verifier ({verdict.rule}): {case[:80]!r}")
        if canary.exists():
            found.append(f"run: {case[:80]!r}")
            canary.unlink()
    return found


def peak_memory_mb(pid: int) -> float:
    """Largest resident set of a process so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_no_fixed_case_is_late_rewarded_or_run(hostile: ModuleType, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    cases = hostile.fixed_cases(str(canary))
    assert len(set(cases)) >= 300
    with VerifierPool(deadline_s=DEADLINE_S, memory_mb=512) as pool:
        assert offences(pool, cases, hostile.GOLD, canary) == []
        assert pool.verify(Answer(id="a", gold="x+1", pred="1+x")).outcome is Outcome.CORRECT
        (pid,) = pool.worker_pids()
        assert peak_memory_mb(pid) < 512


def test_no_generated_case_is_late_rewarded_or_run(hostile: ModuleType, tmp_path: Path) -> None:
    with VerifierPool(deadline_s=DEADLINE_S, memory_mb=512) as pool:
        cases = hostile.generated_cases(1_500, seed=11)
        assert offences(pool, cases, hostile.GOLD, tmp_path / "canary") == []
        assert pool.verify(Answer(id="a", gold="x+1", pred="1+x")).outcome is Outcome.CORRECT
        assert all(peak_memory_mb(pid) < 512 for pid in pool.worker_pids())


@pytest.mark.slow
def test_no_generated_case_of_50_000_is_late_rewarded_or_run(
    hostile: ModuleType, tmp_path: Path
) -> None:
    with VerifierPool(deadline_s=DEADLINE_S, memory_mb=512) as pool:
        cases = hostile.generated_cases(50_000, seed=2025)
        assert offences(pool, cases, hostile.GOLD, tmp_path / "canary", by_caller=True) == []
        assert len(pool.worker_pids()) == 1


@pytest.mark.parametrize("kind", [AnswerKind.CHOICE, AnswerKind.TEXT])
def test_no_case_is_late_or_rewarded_as_a_choice_or_a_text(
    hostile: ModuleType, tmp_path: Path, kind: AnswerKind
) -> None:
    cases = hostile.fixed_cases(str(tmp_path / "canary"))
    gold = "H, J" if kind is AnswerKind.CHOICE else "the black cat"
    with VerifierPool(deadline_s=DEADLINE_S) as pool:
        for case in cases:
            started = time.perf_counter()
            verdict = pool.verify(Answer(id="hostile", gold=gold, pred=case, kind=kind))
            assert time.perf_counter() - started < DEADLINE_S, case[:80]
            assert verdict.outcome not in (Outcome.CORRECT, Outcome.ERROR), case[:80]


def test_a_weak_verifier_fails_the_same_test_in_all_three_ways(
    hostile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    canary = tmp_path / "canary"
    cases = [
        rf"\boxed{{__import__('pathlib').Path('{canary}').touch()}}",
        "x + 7919",
        "factorial(10**8) + x",
    ]
    # No deadline to speak of: what is late must be seen to be late.
    with VerifierPool(deadline_s=2.5, worker_module="weak_worker") as pool:
        found = offences(pool, cases, hostile.GOLD, canary)
    assert [line.split()[0].rstrip(":") for line in found] == ["run", "rewarded", "late"]


def test_the_deadline_kills_a_worker_that_hangs_and_the_pool_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with VerifierPool(deadline_s=0.3, worker_module="weak_worker") as pool:
        slow = pool.verify(Answer(id="a", gold="y", pred="factorial(10**8) + x"))
        (after,) = pool.worker_pids() or [0]
        quick = pool.verify(Answer(id="b", gold="y", pred="x + 7919"))
    assert (slow.outcome, slow.rule) == (Outcome.TIMEOUT, "deadline")
    assert 0.3 <= slow.seconds < 0.5
    assert after == 0
    assert quick.outcome is Outcome.CORRECT
