"""A pool of verifier workers owned by the caller: verdicts within a deadline, from any thread.

    Answer -> extract, cap, fast path (in the caller) -> cache -> worker (killable) -> Verdict

Works the same from the main thread, other threads, asyncio and Ray actors: no signal handlers, no
event loop of its own. Workers start when the first answer needs one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple

from still_core.errors import ConfigError, VerifierError, explain
from still_core.progress import Progress, ProgressListener
from still_core.verify.answer import VERIFIER_VERSION, Answer
from still_core.verify.conventions import Conventions
from still_core.verify.preparation import Prepared, prepare
from still_core.verify.process import DeadlineExceeded, WorkerDied, WorkerProcess
from still_core.verify.verdict import Outcome, Verdict

CACHED = frozenset({Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSABLE})
"""Outcomes that depend on the pair alone; a time-out or an error may not happen again."""


class _Work(NamedTuple):
    prepared: Prepared
    started: float
    future: Future[Verdict]


class VerifierPool:
    """Judges answers; use as a context manager, or call `close`."""

    def __init__(
        self,
        *,
        workers: int = 1,
        deadline_s: float = 2.0,
        memory_mb: int = 1024,
        conventions: Conventions | None = None,
        cache_size: int = 100_000,
        recycle_after: int = 5_000,
        worker_module: str = "still_core.verify.worker",
    ) -> None:
        """Args:
            workers: worker processes, >= 1.
            deadline_s: wall-clock seconds for one answer once a worker has taken it, > 0.
            memory_mb: address space of one worker, >= 256.
            cache_size: settled pairs that are remembered; 0 remembers none.
            recycle_after: a worker is replaced after this many answers (bounds slow leaks).
            worker_module: module run as the worker; another one only in tests of the pool.

        Raises:
            ConfigError: a value out of its range.
        """
        if workers < 1 or deadline_s <= 0 or memory_mb < 256 or recycle_after < 1:
            raise ConfigError(
                explain(
                    "verifier pool settings",
                    got=f"workers={workers} deadline_s={deadline_s} memory_mb={memory_mb}",
                    expected="workers >= 1, deadline_s > 0, memory_mb >= 256",
                )
            )
        self.conventions = conventions or Conventions()
        self._deadline_s = deadline_s
        self._memory_mb = memory_mb
        self._recycle_after = recycle_after
        self._module = worker_module
        self._cache: OrderedDict[tuple[str, ...], tuple[Outcome, str]] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
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
            self._queue.put(_Work(prepared, started, future))
        return future

    def verify(self, answer: Answer) -> Verdict:
        """The verdict on one answer; blocks."""
        return self.submit(answer).result()

    def verify_many(
        self, answers: Iterable[Answer], progress: ProgressListener | None = None
    ) -> list[Verdict]:
        """Verdicts in input order; all workers are used."""
        futures = [self.submit(answer) for answer in answers]
        verdicts = []
        for done, future in enumerate(futures, 1):
            verdicts.append(future.result())
            if progress is not None and (done % 100 == 0 or done == len(futures)):
                progress(Progress(stage="verify", done=done, total=len(futures), unit="answers"))
        return verdicts

    async def averify(self, answer: Answer) -> Verdict:
        """The verdict on one answer, for asyncio."""
        return await asyncio.wrap_future(self.submit(answer))

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [worker.pid for worker in list(self._workers) if worker.pid is not None]

    def close(self) -> None:
        """Kill the workers; waiting answers get the outcome `error`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------

    def _verdict(self, prepared: Prepared, outcome: Outcome, rule: str, started: float) -> Verdict:
        return Verdict(
            outcome=outcome,
            extracted=prepared.extracted,
            rule=rule,
            verifier_version=VERIFIER_VERSION,
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
            if self._closed:
                outcome, rule = Outcome.ERROR, "pool_closed"
                work.future.set_result(self._verdict(work.prepared, outcome, rule, work.started))
                continue
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                work.future.set_result(self._judge(worker, work.prepared))
            except BaseException as error:  # handed to whoever waits for the future
                work.future.set_exception(error)
        worker.kill()

    def _judge(self, worker: WorkerProcess, prepared: Prepared) -> Verdict:
        worker.start()
        started = time.perf_counter()
        found = self._remembered(prepared.key)
        if found is None:
            outcome, rule = self._ask(worker, prepared)
            self._remember(prepared.key, outcome, rule)
        else:
            outcome, rule = found
        if worker.served >= self._recycle_after:
            worker.kill()
        return self._verdict(prepared, outcome, rule, started)

    def _ask(self, worker: WorkerProcess, prepared: Prepared) -> tuple[Outcome, str]:
        try:
            reply = worker.ask(prepared.request(self.conventions), self._deadline_s)
        except DeadlineExceeded:
            return Outcome.TIMEOUT, "deadline"
        except WorkerDied as death:
            return Outcome.ERROR, f"worker_died:{death}"
        if reply.get("spent"):
            worker.kill()
        return Outcome(reply["outcome"]), str(reply["rule"])
