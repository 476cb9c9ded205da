"""Attempts at problems: what is known from the bank, what runs, what to start next.

    problems -> bank first -> pool draws what is missing -> verifier judges each as it ends -> bank

Shared by `explore` (until correct) and `sample` (fixed n). The attempts that count for a problem
depend on the rollouts alone, never on the order in which they ended: with `until_correct` they are
those with sample index 0..k, where k is the lowest correct one and all lower ones have ended.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from still_core.errors import ConfigError, DataError, StoreError, explain
from still_core.identity import derive_seed
from still_core.problems.problem import AnswerKind, Problem
from still_core.progress import Progress, ProgressListener
from still_core.rollout.bank_rows import storable
from still_core.rollout.bank_writer import AT_STAKE
from still_core.rollout.rollout import FinishReason, Rollout, RolloutRequest, Sampling
from still_core.verify.verdict import Outcome, Verdict

_LOG = logging.getLogger(__name__)
_CHUNK = 128
"""Problems looked up in the bank at a time; bounds the rollouts held in memory."""
_NO_ROOM_LIMIT = 16
JUDGED_WITHIN_S = 5.0
"""A rollout whose verdict takes longer is banked without it, and with it once more. In a young
campaign the limit is a share of the time since its first rollout ended, as in the bank's writer."""
_PROMPTLY_S = 0.02
"""What a verdict may always take: most are there by then."""


class PromptTemplate(Protocol):
    """A prompt of `still_core.responses.prompts`."""

    def render(self, problem_statement: str, tokenizer: Any) -> str:
        """The prompt text, chat template applied, ready for the response."""

    def digest(self, tokenizer: Any) -> str:
        """Digest of prompt and chat template."""


class RolloutWriter(Protocol):
    """Appends rollouts durably."""

    def append(self, rollout: Rollout) -> None:
        """Take one rollout; idempotent by its id."""


class Bank(Protocol):
    """The global pool of rollouts (`still_core.rollout.bank.RolloutBank`)."""

    def get(self, ids: Iterable[str]) -> Mapping[str, Rollout]:
        """Rollouts with these ids, as far as the bank has them."""

    def writer(self, *, owner: str) -> AbstractContextManager[Any]:
        """A `RolloutWriter` as context manager."""


class Verifier(Protocol):
    """Judges answers in the background (`still_core.verify.VerifierPool`)."""

    version: str
    """In every verdict; others' verdicts are given again."""

    def submit(self, answer: Any) -> Future[Verdict]:
        """Judge one `still_core.verify.Answer`."""


class Pool(Protocol):
    """Draws completions (`still_core.rollout.pool.RolloutPool`)."""

    engine_build: str

    @property
    def policy_digest(self) -> str: ...
    @property
    def policy_version(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def tokenizer(self) -> Any: ...
    def submit(self, requests: Iterable[RolloutRequest]) -> None: ...
    def cancel(self, ids: Iterable[str]) -> None: ...
    def pending(self) -> int: ...
    def poll(self, timeout_s: float = 0.25) -> list[Rollout]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One judged rollout, without its text."""

    rollout_id: str
    sample_index: int
    outcome: Outcome
    finish_reason: FinishReason
    num_tokens: int
    from_bank: bool

    @property
    def correct(self) -> bool:
        """Whether the verifier found the answer correct."""
        return self.outcome is Outcome.CORRECT


@dataclass
class ProblemSearch:
    """The state of one problem."""

    problem: Problem
    requests: Sequence[RolloutRequest]  # [max_attempts], none once the search is closed
    ids: Sequence[str]  # [max_attempts]
    until_correct: bool
    keeps_texts: bool = True
    attempts: dict[int, Attempt] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    """Indices that are being drawn or judged."""
    kept: dict[int, Rollout] = field(default_factory=dict)
    """Rollouts with text: the lowest correct one, or all where the search is for a fixed n and
    keeps texts."""
    lowest_correct: int | None = None
    """Lowest index of a correct attempt so far."""

    def horizon(self) -> int:
        """Indices below this one are wanted."""
        if self.until_correct and self.lowest_correct is not None:
            return self.lowest_correct + 1
        return len(self.ids)

    def done(self) -> bool:
        """Whether every wanted attempt has ended."""
        return all(index in self.attempts for index in range(self.horizon()))

    def startable(self, limit: int) -> list[int]:
        """The next indices to draw so that at most `limit` run."""
        room = limit - len(self.running)
        if room <= 0:
            return []
        missing = (
            i for i in range(self.horizon()) if i not in self.attempts and i not in self.running
        )
        return [index for index, _ in zip(missing, range(room), strict=False)]

    def beyond_horizon(self) -> list[int]:
        """Running indices that can not count any more."""
        horizon = self.horizon()
        return [index for index in self.running if index >= horizon]

    def record(self, attempt: Attempt, rollout: Rollout) -> None:
        """Note an attempt that was judged."""
        self.running.discard(attempt.sample_index)
        self.attempts[attempt.sample_index] = attempt
        index = attempt.sample_index
        lowest = self.lowest_correct is None or index < self.lowest_correct
        if attempt.correct and lowest:
            self.lowest_correct = index
            if self.until_correct:
                self.kept = {index: rollout.packed()}
        if not self.until_correct and self.keeps_texts:
            self.kept[index] = replace(rollout, token_ids=(), logprobs=())

    def counted(self) -> tuple[Attempt, ...]:
        """The attempts that count, by index."""
        return tuple(self.attempts[index] for index in range(self.horizon()))


@dataclass
class Tally:
    """What a campaign cost."""

    generated_rollouts: int = 0
    generated_tokens: int = 0
    banked_rollouts: int = 0
    """Rollouts that were read from the bank instead of drawn."""
    correct: int = 0
    solved: int = 0
    aborted: int = 0
    no_room: int = 0
    """Rollouts whose prompt filled the whole context: empty and truncated."""
    seconds: float = 0.0


class Campaign:
    """Runs the searches of many problems over one pool."""

    def __init__(
        self,
        *,
        stage: str,
        pool: Pool,
        verifier: Verifier,
        bank: Bank | None,
        owner: str,
        build: Callable[[Problem], ProblemSearch],
        in_flight_limit: Callable[[int], int],
        idle_limit: Callable[[int], int],
        abort_siblings: bool,
        progress: ProgressListener | None,
    ) -> None:
        """Name the campaign; `run` does it.

        Args:
            stage: name for the progress.
            pool: draws completions.
            verifier: judges them.
            bank: read first, and given every rollout; None keeps nothing.
            owner: writer's name in the bank.
            build: opens the search of a problem.
            in_flight_limit: finished attempts of a problem -> how many of it may run at once.
            idle_limit: the same where places of the engines would stand empty otherwise.
            abort_siblings: cut attempts that can not count any more.
            progress: told about twice a second.
        """
        self.tally = Tally()
        self._stage, self._pool, self._verifier, self._bank = stage, pool, verifier, bank
        self._owner, self._build = owner, build
        self._limit, self._idle_limit = in_flight_limit, idle_limit
        self._abort_siblings, self._progress = abort_siblings, progress
        self._open: dict[str, ProblemSearch] = {}
        self._first: dict[str, ProblemSearch] = {}
        """Searches by their first rollout's identity: one problem may come under several ids."""
        self._by_rollout: dict[str, tuple[ProblemSearch, int]] = {}
        self._judged: SimpleQueue[tuple[Rollout, bool, Future[Verdict]]] = SimpleQueue()
        self._judging: set[str] = set()
        self._unbanked: dict[str, tuple[Rollout, float]] = {}
        """Rollouts that have ended and are in no bank yet, and when they came; oldest first."""
        self._first_ended: float | None = None
        self._wanting: dict[str, ProblemSearch] = {}
        """Open searches that may have something to start."""
        self._touched: dict[str, ProblemSearch] = {}
        """Open searches that may be done."""
        self._writer: RolloutWriter | None = None
        self._done = 0
        self._started = self._told = time.monotonic()

    def run(self, problems: Sequence[Problem]) -> list[ProblemSearch]:
        """Search all problems; the result is in their order.

        Problems that ask for the very same rollouts (one problem under two ids, greedy decoding)
        share one search.

        Raises:
            RolloutError: the engines can not go on.
            VerifierError: the verifier can not go on.
        """
        self._started = time.monotonic()
        _require_unique(problems)
        waiting = deque(problems)
        searches: list[ProblemSearch] = []
        with ExitStack() as stack:
            if self._bank is not None:
                self._writer = stack.enter_context(self._bank.writer(owner=self._owner))
            stack.callback(self._drop_running)
            stack.callback(self._bank_unjudged, within_s=0.0)
            while waiting or self._open or self._judging:
                # Some are being judged and have nothing to draw meanwhile.
                if waiting and len(self._open) < 2 * self._pool.capacity:
                    chunk = [waiting.popleft() for _ in range(min(_CHUNK, len(waiting)))]
                    searches.extend(self._admit(chunk))
                self._launch(ahead=not waiting)
                self._turn()
                self._close_finished()
                self._tell(len(problems))
        found = [replace(self._first[each.ids[0]], problem=each.problem) for each in searches]
        self._done = len(found)
        self.tally.solved = sum(each.lowest_correct is not None for each in found)
        self.tally.seconds = time.monotonic() - self._started
        self._tell(len(problems), last=True)
        return found

    def _admit(self, problems: Sequence[Problem]) -> list[ProblemSearch]:
        """Open searches, filled from the bank as far as it goes; those of twins stay closed."""
        built = [self._build(problem) for problem in problems]
        searches = [s for s in built if self._first.setdefault(s.ids[0], s) is s]
        for twin in built:
            if self._first[twin.ids[0]] is not twin:
                twin.requests = ()
        opened = {search.problem.id: search for search in searches}
        self._open.update(opened)
        self._wanting.update(opened)
        self._touched.update(opened)
        if self._bank is None:
            return built
        places = {identity: (s, n) for s in searches for n, identity in enumerate(s.ids)}
        for identity, rollout in self._bank.get(list(places)).items():
            search, index = places[identity]
            self.tally.banked_rollouts += 1
            if self._is_current(rollout):
                self._note(search, rollout, from_bank=True)
            else:
                search.running.add(index)
                self._by_rollout[identity] = (search, index)
                self._judge(rollout, from_bank=True)
        return built

    def _launch(self, *, ahead: bool) -> None:
        """Start attempts while the pool has room, problems with the fewest first.

        A problem's waves come one after the other, so what starts late ends last. Those that have
        failed often come last and then run many at once, which keeps the engines full to the end.
        Where places would stand empty all the same, and no problem waits (`ahead`), the waves are
        passed, hardest problems first.
        """
        room = self._pool.room
        if room <= 0:
            return
        batch: list[RolloutRequest] = []
        for search in sorted(self._wanting.values(), key=lambda s: len(s.attempts)):
            indices = search.startable(self._limit(len(search.attempts)))
            if len(indices) <= room - len(batch):
                del self._wanting[search.problem.id]
            batch.extend(self._start(search, indices[: room - len(batch)]))
        idle = self._pool.capacity - self._pool.pending() - len(batch)
        if ahead and idle > 0:
            for search in sorted(self._open.values(), key=lambda s: -len(s.attempts)):
                if any(search.ids[index] in self._judging for index in search.running):
                    continue  # Known in a moment, and one from the bank costs nothing.
                indices = search.startable(self._idle_limit(len(search.attempts)))[:idle]
                batch.extend(self._start(search, indices))
                idle -= len(indices)
                if idle == 0:
                    break
        if batch:
            self._pool.submit(batch)

    def _start(self, search: ProblemSearch, indices: Sequence[int]) -> list[RolloutRequest]:
        """Note that these attempts run; their requests."""
        search.running.update(indices)
        self._by_rollout.update((search.ids[index], (search, index)) for index in indices)
        return [search.requests[index] for index in indices]

    def _turn(self) -> None:
        """Move what has ended one step on: drawn -> judged -> noted and banked."""
        if self._pool.pending():
            ended = self._pool.poll(0.02 if self._judging else 0.25)
            wanted = [rollout for rollout in ended if rollout.id in self._by_rollout]
            now = time.monotonic()
            if ended and self._first_ended is None:
                self._first_ended = now
            self._unbanked |= {rollout.id: (rollout, now) for rollout in wanted}
            for rollout in ended:
                self.tally.generated_rollouts += 1
                self.tally.generated_tokens += len(rollout.token_ids)
                self._check_room(rollout)
            for rollout in wanted:
                self._judge(rollout, from_bank=False)
        self._settle_judged()
        self._bank_unjudged(within_s=self._patience())

    def _settle_judged(self) -> None:
        """Settle what has a verdict; waits for one where nothing is being drawn."""
        wait = bool(self._judging) and not self._pool.pending()
        while self._judging:
            try:
                rollout, from_bank, future = self._judged.get(block=wait, timeout=_PROMPTLY_S)
            except Empty:
                return
            wait = False
            self._judging.discard(rollout.id)
            self._settle(rollout, future.result(), from_bank=from_bank)

    def _check_room(self, rollout: Rollout) -> None:
        """Stop early where no prompt at all fits: that is a mistake in the recipe."""
        self.tally.no_room += rollout.finish_reason.is_truncated() and not rollout.text
        if self.tally.no_room == self.tally.generated_rollouts == _NO_ROOM_LIMIT:
            raise ConfigError(
                explain(
                    "prompts leave no room for a response",
                    got=f"{_NO_ROOM_LIMIT} prompts in a row longer than the context",
                    expected=f"shorter prompts for {self._pool.engine_build}",
                    remedy="raise engine.max_model_len",
                )
            )

    def _judge(self, rollout: Rollout, *, from_bank: bool) -> None:
        from still_core.responses.prompts import whole_response
        from still_core.verify import Answer

        search, _ = self._by_rollout[rollout.id]
        problem = search.problem
        answer = Answer(
            id=rollout.id,
            gold=problem.gold,
            pred=whole_response(rollout.text, rollout.prompt_digest),
            kind=AnswerKind(problem.kind),
            choices=problem.choices,
        )
        self._judging.add(rollout.id)
        future = self._verifier.submit(answer)
        future.add_done_callback(lambda done: self._judged.put((rollout, from_bank, done)))

    def _patience(self) -> float:
        """Seconds that a rollout may wait for its verdict before it is banked without."""
        if self._first_ended is None:
            return JUDGED_WITHIN_S
        worked_s = time.monotonic() - self._first_ended
        return min(JUDGED_WITHIN_S, max(_PROMPTLY_S, AT_STAKE * worked_s))

    def _bank_unjudged(self, *, within_s: float) -> None:
        """Bank what ended so long ago and has no verdict yet: no error may cost it."""
        now = time.monotonic()
        while self._unbanked:
            name, (rollout, since) = next(iter(self._unbanked.items()))
            if now - since < within_s:
                return
            del self._unbanked[name]
            try:
                if self._writer is not None:
                    self._writer.append(rollout)
            except DataError as error:
                # Told for good with its verdict; the others must not be lost for it.
                _LOG.warning("a finished rollout can not be banked: %s", error)
            except StoreError:
                # The writer has it; at the end of the campaign it tries once more, and tells.
                if within_s:
                    raise

    def _settle(self, rollout: Rollout, verdict: Verdict, *, from_bank: bool) -> None:
        # One from the bank that an earlier run had no time to judge is banked with its verdict.
        fresh = not rollout.outcome
        rollout = replace(
            rollout,
            outcome=str(verdict.outcome),
            extracted=verdict.extracted,
            rule=verdict.rule,
            verifier_version=verdict.verifier_version,
        )
        # As it comes back from the bank, or a run that was cut off would end with other bytes.
        rollout = storable(rollout)
        if self._writer is not None and fresh:
            self._writer.append(rollout)
        self._unbanked.pop(rollout.id, None)
        search, _ = self._by_rollout.pop(rollout.id)
        self._note(search, rollout, from_bank=from_bank)
        if self._abort_siblings:
            self._abort(search)

    def _note(self, search: ProblemSearch, rollout: Rollout, *, from_bank: bool) -> None:
        attempt = Attempt(
            rollout_id=rollout.id,
            sample_index=rollout.sample_index,
            outcome=Outcome(rollout.outcome),
            finish_reason=rollout.finish_reason,
            num_tokens=len(rollout.token_ids),
            from_bank=from_bank,
        )
        self.tally.correct += attempt.correct
        search.record(attempt, rollout)
        if search.problem.id in self._open:
            self._wanting[search.problem.id] = self._touched[search.problem.id] = search

    def _is_current(self, rollout: Rollout) -> bool:
        """Whether the banked verdict is one that this verifier would give."""
        judged = rollout.outcome not in ("", Outcome.ERROR)
        return judged and rollout.verifier_version == self._verifier.version

    def _abort(self, search: ProblemSearch) -> None:
        """Cut running attempts that can not count any more.

        One that has ended and is being judged is left alone: it is paid for, and goes to the bank.
        """
        late = [i for i in search.beyond_horizon() if search.ids[i] not in self._judging]
        for index in late:
            search.running.discard(index)
            del self._by_rollout[search.ids[index]]
        if late:
            self._pool.cancel([search.ids[index] for index in late])
            self.tally.aborted += len(late)

    def _close_finished(self) -> None:
        for name, search in self._touched.items():
            if search.done() and (self._abort_siblings or not search.running):
                self._done += 1
                self.tally.solved += search.lowest_correct is not None
                search.requests = ()
                del self._open[name]
                self._wanting.pop(name, None)
        self._touched.clear()

    def _drop_running(self) -> None:
        """Nothing of this campaign stays in the pool, whatever ended it."""
        self._pool.cancel(list(self._by_rollout))

    def _tell(self, total: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._told < 0.5 and not last):
            return
        self._told = now
        seconds = max(now - self._started, 1e-9)
        facts = {
            "rollouts": float(self.tally.generated_rollouts),
            "from_bank": float(self.tally.banked_rollouts),
            "correct": float(self.tally.correct),
            "solved": float(self.tally.solved),
            "in_flight": float(self._pool.pending()),
            "tokens_per_s": self.tally.generated_tokens / seconds,
        }
        self._progress(
            Progress(stage=self._stage, done=self._done, total=total, unit="problems", facts=facts)
        )


def search_builder(
    pool: Pool,
    prompt: str | PromptTemplate,
    sampling: Sampling,
    *,
    max_attempts: int,
    seed: int,
    round: int,
    until_correct: bool,
    keeps_texts: bool = True,
) -> Callable[[Problem], ProblemSearch]:
    """A function that opens the search of one problem: prompt, seeds and identities.

    Seeds derive from (seed, round, problem id, sample index); greedy decoding draws nothing and
    has seed 0, so that its rollouts are found again in every run.
    """
    template = _template(prompt)
    prompt_digest = template.digest(pool.tokenizer)

    def build(problem: Problem) -> ProblemSearch:
        text = template.render(problem.statement, pool.tokenizer)
        requests = [
            RolloutRequest(
                problem_id=problem.id,
                problem_digest=problem.digest,
                prompt=text,
                prompt_digest=prompt_digest,
                policy_digest=pool.policy_digest,
                policy_version=pool.policy_version,
                sampling=sampling,
                sample_index=index,
                seed=0 if sampling.greedy() else derive_seed(seed, round, problem.id, index),
                engine_build=pool.engine_build,
            )
            for index in range(max_attempts)
        ]
        return ProblemSearch(
            problem=problem,
            requests=requests,
            ids=[request.id for request in requests],
            until_correct=until_correct,
            keeps_texts=keeps_texts,
        )

    return build


def _require_unique(problems: Sequence[Problem]) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(explain("two problems have the same id", got=problem.id))
        seen.add(problem.id)


def _template(prompt: str | PromptTemplate) -> PromptTemplate:
    if not isinstance(prompt, str):
        return prompt
    from still_core.responses.prompts import prompt as named

    template: PromptTemplate = named(prompt)
    return template
