"""The Ray actor that hosts one engine.

The engine lives in one thread of the actor and steps without waiting for anybody. Calls from the
pool only put commands into its inbox and take finished completions from its outbox; they are
answered while the engine starts, works, or hangs, so the pool can always ask what it is doing.

    send, collect(command) -> inbox -> engine thread: apply commands, step -> outbox -> collect

A call costs the actor about a millisecond of CPU whatever it carries, so a command goes with the
call for completions where it can.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from still_core.errors import StillError
from still_core.rollout.cluster import ActorPlace, own_place
from still_core.rollout.engines.engine import Engine, Finished
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import RolloutRequest
from still_core.rollout.weights import Weights
from still_core.stacks import thread_stacks

EngineFactory = Callable[[EngineRecipe, RolloutResources, Weights], Engine]

LINGER_S = 1.0
"""After the first completion, wait at most this long for others to go in the same reply: each call
costs the engine's thread about a millisecond of the interpreter."""
_LINGER_SHARE = 0.002
"""And at most this share of the time that the engine has worked: an actor that is killed takes what
it has not handed over with it."""
_HURRY_S = 0.01
"""The same where the engine has, or soon will have, room for more than it was given."""
_RESERVE = 1 / 8
"""Requests that wait in the engine, over those it draws at once, below which it will soon have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What the pool asks of the engine, in order: abort, then load, then submit."""

    number: int = 0
    """Counts this actor's commands from 0; they are carried out in this order."""
    submit: tuple[RolloutRequest, ...] = ()
    abort: tuple[str, ...] = ()
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The answer to `collect`."""

    finished: tuple[Finished, ...]
    phase: str
    """`starting`, `idle`, `generating`, `loading weights` or `failed`."""
    failure: str
    """Why the engine ended; empty while it lives, and until all that finished is handed over."""
    policy_digest: str
    """Weights that the engine holds; empty before it holds any."""
    steps: int
    """Engine steps so far: stands still where the engine hangs."""
    place: ActorPlace


class RolloutActor:
    """Hosts one engine; every call returns soon, whatever the engine does."""

    def __init__(
        self,
        factory: EngineFactory,
        recipe: EngineRecipe,
        resources: RolloutResources,
        weights: Weights,
    ) -> None:
        self._place = own_place()
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._early: dict[int, Command] = {}
        """Commands that overtook others on their way, by number."""
        self._accepted = 0
        self._accepting = threading.Lock()
        self._outbox: list[Finished] = []
        self._news = threading.Condition()
        self._phase, self._failure, self._policy_digest, self._steps = "starting", "", "", 0
        self._hungry, self._worked_s = False, 0.0
        self._thread = threading.Thread(
            target=self._run, args=(factory, recipe, resources, weights), daemon=True, name="engine"
        )
        self._thread.start()

    def send(self, command: Command) -> None:
        """Queue a command for the engine; returns at once."""
        with self._accepting:
            self._early[command.number] = command
            while self._accepted in self._early:
                self._inbox.put(self._early.pop(self._accepted))
                self._accepted += 1

    def collect(self, wait_s: float, command: Command | None = None) -> Report:
        """Take what has finished; waits up to `wait_s` for the first completion or a failure.

        A command that comes with the call is queued first.
        """
        if command is not None:
            self.send(command)
        with self._news:
            if self._news.wait_for(lambda: self._outbox or self._failure, timeout=wait_s):
                linger_s = min(LINGER_S, _LINGER_SHARE * self._worked_s)
                self._news.wait_for(lambda: self._hungry or self._failure, timeout=linger_s)
                self._news.wait_for(lambda: self._failure, timeout=_HURRY_S)
            finished, self._outbox = tuple(self._outbox), []
            return self._report(finished)

    def health(self) -> Report:
        """What the engine is doing, without taking anything."""
        with self._news:
            return self._report(())

    def stacks(self) -> str:
        """Stacks of all threads of this process."""
        return thread_stacks()

    def _report(self, finished: tuple[Finished, ...]) -> Report:
        """The caller holds `_news`: the engine adds to the outbox before it fails, never after."""
        return Report(
            finished=finished,
            phase=self._phase,
            failure="" if self._outbox else self._failure,
            policy_digest=self._policy_digest,
            steps=self._steps,
            place=self._place,
        )

    def _run(
        self,
        factory: EngineFactory,
        recipe: EngineRecipe,
        resources: RolloutResources,
        weights: Weights,
    ) -> None:
        try:
            engine = factory(recipe, resources, weights)
            self._policy_digest = engine.weights.policy_digest
            enough = int(resources.max_num_seqs * (1 + _RESERVE))
            while True:
                self._phase = "generating" if engine.pending() else "idle"
                self._apply(engine)
                if engine.pending():
                    started = time.monotonic()
                    finished = engine.step()
                    self._worked_s += time.monotonic() - started
                    self._steps += 1
                    if finished:
                        with self._news:
                            first = not self._outbox
                            self._outbox.extend(finished)
                            self._hungry = engine.pending() <= enough
                            # Waking the other thread for each would cost this one its turn.
                            if first or self._hungry:
                                self._news.notify_all()
        # The thread's end is reported to the pool, whatever its cause, out of memory included.
        except BaseException as error:
            with self._news:
                self._phase, self._failure = "failed", _cause(error)
                self._news.notify_all()

    def _apply(self, engine: Engine) -> None:
        """Carry out the commands that wait; waits for one where there is nothing to generate."""
        wait = not engine.pending()
        while True:
            try:
                command = self._inbox.get(block=wait)
            except Empty:
                return
            wait = False
            if command.abort:
                engine.abort(command.abort)
            if command.weights is not None:
                self._phase = "loading weights"
                engine.load_weights(command.weights)
                self._policy_digest = command.weights.policy_digest
            if command.submit:
                engine.submit(command.submit)


def _cause(error: BaseException) -> str:
    """One line naming the error and, for one of ours, nothing but its text."""
    if isinstance(error, StillError):
        return str(error)
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}{where}: {text}"
