"""Programs against tests: expected values never stand where the model's code runs.

    tests --reading--> calls --candidate's sandbox--> values --tests' sandbox--> verdict

Assert-style tests (HumanEval's `check(candidate)`, MBPP, LeetCode) run in a sandbox of their own,
in which the candidate's functions are stand-ins that look values up; the values come from a second
sandbox that holds the candidate's code and no test. What a program prints, and its exit status,
decide nothing; a random nonce per run marks what the harness says. Programs with stdin are
compared outside.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from still_core.verify.code_harness import candidate_program, test_program, tested_names
from still_core.verify.extraction import boxed_answer, solution_part
from still_core.verify.verdict import Outcome

if TYPE_CHECKING:
    from still_core.sandbox import Sandbox

MAX_ROUNDS = 64
"""Most times that tests ask for values they did not ask for before."""
MAX_CALLS = 2_000
"""Most calls of one set of tests that are answered in one round."""
FIRST_LOOK_S = 3.0
"""Longest first reading of the tests: with stand-ins for values a loop of theirs may never end."""
OUTPUT_BYTES = 1 << 22
"""Output kept of one program: the values of all calls."""
MAX_VALUES = 1 << 24
"""Most characters of all values of one candidate."""
MAX_CODE = 200_000
"""Longest program, in characters."""

_FENCE = re.compile(
    r"```[ \t]*(python3?|py)?[ \t]*\r?\n(.*?)(?:\r?\n)?```", re.DOTALL | re.IGNORECASE
)


class RunResult(Protocol):
    """What is read of `still_core.sandbox.SandboxResult`."""

    @property
    def status(self) -> Any:
        """`timeout` where it was killed at the deadline."""

    @property
    def stdout(self) -> str:
        """What it printed."""


Runner = Callable[[str, str, float], RunResult]
"""(program, stdin, seconds) to a result; a sandbox."""


class ProgramSandbox:
    """Runs programs in `still_core.sandbox`, started with the first of them."""

    def __init__(self, *, memory_mb: int, warm: int) -> None:
        self._memory_mb = memory_mb
        self._warm = warm
        self._sandbox: Sandbox | None = None
        self._lock = threading.Lock()

    def run(self, program: str, stdin: str, seconds: float) -> RunResult:
        """One program in a place of its own.

        Raises:
            SandboxError: isolation is not available here.
        """
        with self._lock:
            if self._sandbox is None:
                from still_core.sandbox import Limits, Sandbox

                limits = Limits(memory_mb=self._memory_mb, output_bytes=OUTPUT_BYTES)
                self._sandbox = Sandbox(limits, warm=self._warm)
        return self._sandbox.run(program, stdin=stdin, timeout_s=min(seconds, 3600.0))

    def close(self) -> None:
        """Kill what still runs."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
                self._sandbox = None


class CodeGold(NamedTuple):
    """A gold of kind code."""

    prelude: str
    tests: str
    stdin: tuple[tuple[str, str], ...]


def read_gold(gold: str) -> CodeGold:
    """The tests in a gold: `{"tests": [...]}` or `{"stdin": [[input, output], ...]}`.

    Raises:
        ValueError: neither stands there.
    """
    row = json.loads(gold)
    if not isinstance(row, dict) or not (row.get("tests") or row.get("stdin")):
        raise ValueError("gold of kind code holds neither tests nor stdin")
    tests = row.get("tests") or []
    lines = [tests] if isinstance(tests, str) else [str(test) for test in tests]
    pairs = tuple((str(given), str(wanted)) for given, wanted in row.get("stdin") or [])
    return CodeGold(str(row.get("prelude") or ""), "\n".join(lines), pairs)


def extract_code(response: str, gold: str = "") -> str | None:
    """The program in a response: a fenced block of the solution, a box, or all of it.

    Of several blocks the last counts that defines a name which the gold's tests use (a block of
    sample output or of calls may follow it), else the last that says it is Python, else the last.
    """
    part = solution_part(response)
    if part.text is None:
        return None
    blocks = _FENCE.findall(part.text)
    if blocks:
        return _chosen(blocks, gold)
    boxed = boxed_answer(part.text, join=False)
    if boxed is not None:
        return boxed
    text = part.text.strip("\n")
    looks_like_code = re.search(r"^\s*(?:def |class |import |from |print\(|\w+ *=)", text, re.M)
    return text if looks_like_code else None


def _chosen(blocks: list[tuple[str, str]], gold: str) -> str:
    texts = [text for _, text in blocks]
    if len(texts) > 1:
        texts = [text for language, text in blocks if language] or texts
        try:
            read = read_gold(gold)
            names = tested_names(read.prelude, read.tests)
        except (ValueError, SyntaxError, RecursionError):
            names = []  # judge_code says what is wrong with the gold
        defining = [text for text in texts if any(_defines(text, name) for name in names)]
        texts = defining or texts
    return texts[-1]


def _defines(source: str, name: str) -> bool:
    plain = re.escape(name)
    return bool(re.search(rf"^(?:(?:async )?def|class)\s+{plain}\b|^{plain}\s*=", source, re.M))


def judge_code(gold: str, source: str, run: Runner, deadline_s: float) -> tuple[Outcome, str]:
    """Outcome and rule of one program; every sandboxed run ends within the deadline."""
    if len(source) > MAX_CODE:
        return Outcome.UNPARSABLE, "size_cap"
    try:
        read = read_gold(gold)
        names = tested_names(read.prelude, read.tests)
    except (ValueError, SyntaxError, RecursionError) as error:
        return Outcome.ERROR, f"gold_not_read:{type(error).__name__}"
    until = time.monotonic() + deadline_s
    if read.stdin:
        return _judge_program(read, source, run, until)
    return _Tests(read, names, source, run, until).judge()


def _judge_program(gold: CodeGold, source: str, run: Runner, until: float) -> tuple[Outcome, str]:
    program = f"{gold.prelude}\n{source}" if gold.prelude else source
    for given, wanted in gold.stdin:
        remaining = until - time.monotonic()
        if remaining <= 0:
            return Outcome.TIMEOUT, "deadline"
        result = run(program, given, remaining)
        if str(result.status) == "timeout":
            return Outcome.TIMEOUT, "deadline"
        if _lines(result.stdout) != _lines(wanted):
            return Outcome.WRONG, "stdout"
    return Outcome.CORRECT, "stdout"


def _lines(text: str) -> list[str]:
    """Lines without blanks at their ends and without empty lines at the end."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n").split("\n")


class _Timeout(Exception):
    """A sandboxed run met the deadline."""


class _TooLarge(Exception):
    """The candidate's values are over the cap."""


class _Tests:
    def __init__(
        self, gold: CodeGold, names: list[str], source: str, run: Runner, until: float
    ) -> None:
        self.gold = gold
        self.names = names
        self.source = source
        self.run = run
        self.until = until
        self.ahead = True
        """Whether looking ahead is of use: it is not where the tests loop over stand-ins."""
        self.size = 0
        self.calls: dict[str, list[str]] = {}
        """Each call's key to the key of the call before it and its step, as JSON text."""
        self.values: dict[str, str] = {}
        """Each call's key to what the candidate reported, as it did: nobody here reads it."""

    def judge(self) -> tuple[Outcome, str]:
        """Rounds of tests and values until the tests know all they ask for."""
        try:
            for _ in range(MAX_ROUNDS):
                if not self.ask(self.look_ahead()):
                    return Outcome.WRONG, "does_not_load"
                verdict = self.read_tests(strict=True, seconds=math.inf)
                failed = verdict.get("failed")
                if failed is None:
                    return Outcome.ERROR, "tests_died"
                if failed == "foreign":
                    return Outcome.ERROR, "tests_pass_objects"
                if failed == "missing":
                    if not self.ask(verdict["missing"]):
                        return Outcome.WRONG, "does_not_load"
                    continue
                if not self.calls:
                    return Outcome.ERROR, "tests_call_nothing"
                if failed:
                    return Outcome.WRONG, f"tests:{failed}"
                return Outcome.CORRECT, "tests"
        except _Timeout:
            return Outcome.TIMEOUT, "deadline"
        except _TooLarge:
            return Outcome.UNPARSABLE, "values_cap"
        return Outcome.ERROR, "tests_ask_on"

    def look_ahead(self) -> dict[str, list[str]]:
        """Calls whose values are not known, as many as one reading finds."""
        if not self.ahead:
            return {}
        try:
            verdict = self.read_tests(strict=False, seconds=FIRST_LOOK_S)
        except _Timeout:
            verdict = {}
        self.ahead = "missing" in verdict
        missing: dict[str, list[str]] = verdict.get("missing", {})
        return missing

    def read_tests(self, *, strict: bool, seconds: float) -> dict[str, Any]:
        """One run of the tests against the values known so far."""
        nonce = secrets.token_hex(16)
        program = test_program(self.gold.prelude, self.gold.tests, self.names, nonce, strict=strict)
        reports = self.sandboxed(program, json.dumps(self.values), nonce, seconds)
        if "tests" not in reports:
            return {}
        verdict: dict[str, Any] = json.loads(reports["tests"])
        return verdict

    def ask(self, missing: dict[str, list[str]]) -> bool:
        """Ask the candidate for the values of calls; False where its code does not load."""
        wanted = list(missing)[:MAX_CALLS]
        if not wanted:
            return True
        self.calls.update(missing)
        nonce = secrets.token_hex(16)
        program = candidate_program(self.gold.prelude, self.source, wanted, nonce)
        chains = json.dumps({key: self.calls[key] for key in self.with_ancestors(wanted)})
        reports = self.sandboxed(program, chains, nonce, math.inf)
        if "load" in reports:
            return False
        for key in wanted:  # those without a report: the process ended before it came to them
            self.values[key] = reports.get(key, '{"e": "SystemExit"}')
            self.size += len(self.values[key])
        if self.size > MAX_VALUES:
            raise _TooLarge
        return True

    def with_ancestors(self, keys: list[str]) -> set[str]:
        """The calls, and those that made the objects they are called on."""
        found: set[str] = set()
        for key in keys:
            while key and key not in found:
                found.add(key)
                key = self.calls[key][0]
        return found

    def sandboxed(self, program: str, stdin: str, nonce: str, seconds: float) -> dict[str, str]:
        """What a program of ours reports after the nonce: a key, and text that nobody reads here.

        Raises:
            _Timeout: it met the deadline.
        """
        remaining = min(seconds, self.until - time.monotonic())
        if remaining <= 0:
            raise _Timeout
        result = self.run(program, stdin, remaining)
        if str(result.status) == "timeout":
            raise _Timeout
        lines = re.findall(rf"^{nonce}(\w+) (.*)$", result.stdout, re.MULTILINE)
        return dict(reversed(lines))  # of two reports the first counts
