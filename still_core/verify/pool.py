"""A pool of verifier workers owned by the caller: verdicts within a deadline, from any thread.

    Answer -> extract, cap, fast path (in the caller) -> cache -> worker (killable) -> Verdict

Works the same from the main thread, other threads, asyncio and Ray actors: no signal handlers, no
event loop of its own. Workers start when the first answer needs one.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from still_core.closing import Closing
from still_core.errors import ConfigError, VerifierError, explain
from still_core.identity import digest
from still_core.problems.problem import AnswerKind
from still_core.progress import Progress, ProgressListener
from still_core.verify.answer import VERIFIER_VERSION, Answer
from still_core.verify.audit import Disagreement, disagree
from still_core.verify.code import ProgramSandbox, judge_code
from still_core.verify.conventions import Conventions
from still_core.verify.preparation import Prepared, prepare
from still_core.verify.process import DeadlineExceeded, WorkerDied, WorkerProcess
from still_core.verify.recipe import CODE_DEADLINE_S, DEADLINE_S
from still_core.verify.verdict import Outcome, Verdict

CACHED = frozenset({Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSABLE})
"""Outcomes that depend on the pair alone; a time-out or an error may not happen again."""

TELL_EVERY_S = 10.0
"""Longest time with an answer judged and no progress told."""


class _Work(NamedTuple):
    prepared: Prepared
    future: Future[Verdict]


class _Request(NamedTuple):
    """A bare request to a worker: a second opinion, a digit filter."""

    message: dict[str, Any]
    future: Future[tuple[Outcome, str]]


class VerifierPool(Closing):
    """Judges answers; use as a context manager, or call `close`."""

    def __init__(
        self,
        *,
        workers: int = 1,
        deadline_s: float = DEADLINE_S,
        memory_mb: int = 1024,
        conventions: Conventions | None = None,
        code_deadline_s: float = CODE_DEADLINE_S,
        cache_size: int = 100_000,
        recycle_after: int = 5_000,
        worker_module: str = "still_core.verify.worker",
    ) -> None:
        """Args:
            workers: worker processes, >= 1.
            deadline_s: wall-clock seconds for one answer once a worker has taken it, > 0.
            code_deadline_s: wall-clock seconds for all tests of one program, > 0.
            memory_mb: address space of one worker, >= 256.
            cache_size: settled pairs that are remembered; 0 remembers none.
            recycle_after: a worker is replaced after this many answers (bounds slow leaks).
            worker_module: module run as the worker; another one only in tests of the pool.

        Raises:
            ConfigError: a value out of its range.
        """
        limited = all(0 < seconds < math.inf for seconds in (deadline_s, code_deadline_s))
        if workers < 1 or not limited or memory_mb < 256 or recycle_after < 1:
            raise ConfigError(
                explain(
                    "verifier pool settings",
                    got=f"workers={workers} deadline_s={deadline_s} "
                    f"code_deadline_s={code_deadline_s} memory_mb={memory_mb}",
                    expected="workers >= 1, deadlines > 0 and finite, memory_mb >= 256",
                )
            )
        self.conventions = conventions or Conventions()
        settings = (self.conventions, deadline_s, code_deadline_s)
        self.version = VERIFIER_VERSION
        """In every verdict; other settings than the defaults may judge otherwise and mark it."""
        if settings != (Conventions(), DEADLINE_S, CODE_DEADLINE_S):
            self.version += f"+{digest(settings, length=8)}"
        self._deadline_s = deadline_s
        self._code_deadline_s = code_deadline_s
        self._programs = ProgramSandbox(memory_mb=memory_mb, warm=2 * workers)
        self._memory_mb = memory_mb
        self._recycle_after = recycle_after
        self._module = worker_module
        self._cache: OrderedDict[tuple[str, ...], tuple[Outcome, str]] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Work | _Request | None] = queue.SimpleQueue()
        self._num_workers = workers
        self._threads: list[threading.Thread] = []
        self._workers: list[WorkerProcess] = []
        self._closed = False

    # -- use ---------------------------------------------------------------------------------

    def submit(self, answer: Answer) -> Future[Verdict]:
        """A future verdict; already done where no worker was needed.

        Raises:
            VerifierError: the pool is closed.
        """
        started = time.perf_counter()
        if self._closed:
            raise VerifierError(explain("the verifier pool is closed", remedy="open a new one"))
        prepared = prepare(answer, self.conventions)
        future: Future[Verdict] = Future()
        settled = prepared.settled or self._remembered(prepared.key)
        if settled is not None:
            future.set_result(self._verdict(prepared, *settled, started))
        else:
            self._start_threads()
            self._queue.put(_Work(prepared, future))
        return future

    def verify(self, answer: Answer) -> Verdict:
        """The verdict on one answer; blocks."""
        return self.submit(answer).result()

    def verify_many(
        self, answers: Iterable[Answer], progress: ProgressListener | None = None
    ) -> list[Verdict]:
        """Verdicts in input order; all workers are used. Progress is told every 100 answers, and
        more often where they take long."""
        futures = [self.submit(answer) for answer in answers]
        verdicts, told = [], time.monotonic()
        for done, future in enumerate(futures, 1):
            verdicts.append(future.result())
            due = done % 100 == 0 or done == len(futures) or time.monotonic() - told > TELL_EVERY_S
            if progress is not None and due:
                told = time.monotonic()
                progress(Progress(stage="verify", done=done, total=len(futures), unit="answers"))
        return verdicts

    async def averify(self, answer: Answer) -> Verdict:
        """The verdict on one answer, for asyncio."""
        return await asyncio.wrap_future(self.submit(answer))

    def audit(self, answers: Iterable[Answer]) -> Iterator[Disagreement]:
        """Answers of kind math on which the second verifier contradicts the first, in order."""
        for answer in answers:
            if (found := self.submit_audit(answer).result()) is not None:
                yield found

    def submit_audit(self, answer: Answer) -> Future[Disagreement | None]:
        """Both opinions on one answer; None where they agree or only one could be asked."""
        future: Future[Disagreement | None] = Future()

        def second(done: Future[Verdict]) -> None:
            try:
                verdict = done.result()
                if answer.kind is not AnswerKind.MATH or verdict.extracted is None:
                    future.set_result(None)
                    return
                request = {"kind": "audit", "gold": answer.gold, "pred": verdict.extracted}
                self._request(request).add_done_callback(
                    lambda reply: _settle_audit(future, answer, verdict, reply)
                )
            except BaseException as error:  # handed to whoever waits for the future
                future.set_exception(error)

        self.submit(answer).add_done_callback(second)
        return future

    def parses_to_digits(self, gold: str) -> bool:
        """STILL-3's digit filter, in a worker: whether SymPy makes one real number of `gold`."""
        outcome, _ = self._request({"kind": "digits", "gold": gold}).result()
        return outcome is Outcome.CORRECT

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [worker.pid for worker in list(self._workers) if worker.pid is not None]

    def close(self) -> None:
        """Kill the workers; whoever still waits for a verdict gets a `VerifierError`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()
        self._programs.close()

    # -- inside ------------------------------------------------------------------------------

    def _verdict(self, prepared: Prepared, outcome: Outcome, rule: str, started: float) -> Verdict:
        return Verdict(
            outcome=outcome,
            extracted=prepared.extracted,
            rule=rule,
            verifier_version=self.version,
            seconds=time.perf_counter() - started,
        )

    def _remembered(self, key: tuple[str, ...]) -> tuple[Outcome, str] | None:
        with self._lock:
            found = self._cache.get(key)
            if found is not None:
                self._cache.move_to_end(key)
            return found

    def _remember(self, key: tuple[str, ...], outcome: Outcome, rule: str) -> None:
        if self._cache_size == 0 or outcome not in CACHED:
            return
        with self._lock:
            self._cache[key] = (outcome, rule)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)

    def _start_threads(self) -> None:
        with self._lock:
            if len(self._threads) >= self._num_workers or self._closed:
                return
            worker = WorkerProcess(memory_mb=self._memory_mb, module=self._module)
            # A daemon: a caller that forgets to close must still be able to exit. The worker's
            # death signal follows the thread that started it, which lives as long as the pool.
            thread = threading.Thread(
                target=self._attend, args=(worker,), name="verifier", daemon=True
            )
            self._workers.append(worker)
            self._threads.append(thread)
            thread.start()

    def _attend(self, worker: WorkerProcess) -> None:
        """Serve the queue with one worker until the pool closes."""
        while (work := self._queue.get()) is not None:
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                if self._closed:
                    raise VerifierError(explain("the verifier pool was closed"))
                if isinstance(work, _Request):
                    work.future.set_result(self._ask(worker, work.message))
                else:
                    work.future.set_result(self._judge(worker, work.prepared))
            except BaseException as error:  # handed to whoever waits for the future
                work.future.set_exception(error)
        worker.close()

    def _request(self, message: dict[str, Any]) -> Future[tuple[Outcome, str]]:
        future: Future[tuple[Outcome, str]] = Future()
        self._start_threads()
        self._queue.put(_Request(message, future))
        return future

    def _judge(self, worker: WorkerProcess, prepared: Prepared) -> Verdict:
        if prepared.kind is AnswerKind.CODE:
            return self._judge_code(prepared)
        worker.start()
        started = time.perf_counter()
        found = self._remembered(prepared.key)
        outcome, rule = found or self._ask(worker, prepared.request(self.conventions))
        if found is None:
            self._remember(prepared.key, outcome, rule)
        loading_s = worker.loading_s if found is None else 0.0
        verdict = self._verdict(prepared, outcome, rule, started + loading_s)
        if worker.served >= self._recycle_after:
            worker.renew()
        return verdict

    def _ask(self, worker: WorkerProcess, request: dict[str, Any]) -> tuple[Outcome, str]:
        try:
            reply = worker.ask(request, self._deadline_s)
        except DeadlineExceeded:
            return Outcome.TIMEOUT, "deadline"
        except WorkerDied as death:
            return Outcome.ERROR, f"worker_died:{death}"
        if reply.get("spent"):
            worker.kill()
        return Outcome(reply["outcome"]), str(reply["rule"])

    def _judge_code(self, prepared: Prepared) -> Verdict:
        """Programs run in sandboxes of their own, not in a worker."""
        started = time.perf_counter()
        outcome, rule = judge_code(
            prepared.gold, prepared.extracted or "", self._programs.run, self._code_deadline_s
        )
        return self._verdict(prepared, outcome, rule, started)


def _settle_audit(
    future: Future[Disagreement | None],
    answer: Answer,
    verdict: Verdict,
    reply: Future[tuple[Outcome, str]],
) -> None:
    if (error := reply.exception()) is not None:
        future.set_exception(error)
        return
    second, rule = reply.result()
    differs = disagree(verdict.outcome, second)
    future.set_result(Disagreement(answer, verdict, second, rule) if differs else None)
