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

MAX_ROUNDS = 12
"""Most times that tests ask for values they did not ask for before."""
MAX_CALLS = 2_000
"""Most calls of one set of tests."""
OUTPUT_BYTES = 1 << 24
"""Output kept of one program: the values of all calls."""
MAX_CODE = 200_000
"""Longest program, in characters."""

_FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\r?\n(.*?)(?:\r?\n)?```", re.DOTALL)


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


def extract_code(response: str) -> str | None:
    """The program in a response: the last fenced block of the solution, a box, or all of it."""
    part = solution_part(response)
    if part.text is None:
        return None
    blocks = _FENCE.findall(part.text)
    if blocks:
        return str(blocks[-1])
    boxed = boxed_answer(part.text, join=False)
    if boxed is not None:
        return boxed
    text = part.text.strip("\n")
    looks_like_code = re.search(r"^\s*(?:def |class |import |from |print\(|\w+ *=)", text, re.M)
    return text if looks_like_code else None


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
    program = f"{gold.prelude}\n{source}"
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


class _Tests:
    def __init__(
        self, gold: CodeGold, names: list[str], source: str, run: Runner, until: float
    ) -> None:
        self.gold = gold
        self.names = names
        self.source = f"{gold.prelude}\n{source}"
        self.run = run
        self.until = until
        self.table: dict[str, Any] = {}

    def judge(self) -> tuple[Outcome, str]:
        """Rounds of tests and values until the tests know all they ask for."""
        try:
            for _ in range(MAX_ROUNDS):
                missing = self.tests(strict=False).get("missing", [])
                if missing and not self.values(missing):
                    return Outcome.WRONG, "does_not_load"
                verdict = self.tests(strict=True)
                if "failed" not in verdict:
                    return Outcome.ERROR, "tests_died"
                if verdict["failed"] != "missing":
                    passed = not verdict["failed"]
                    rule = "tests" if passed else f"tests:{verdict['failed']}"
                    return (Outcome.CORRECT if passed else Outcome.WRONG), rule
        except _Timeout:
            return Outcome.TIMEOUT, "deadline"
        return Outcome.ERROR, "tests_ask_on"

    def tests(self, *, strict: bool) -> dict[str, Any]:
        """One run of the tests against the values known so far."""
        nonce = secrets.token_hex(16)
        program = test_program(
            self.gold.prelude, self.gold.tests, self.names, self.table, nonce, strict=strict
        )
        records = self.sandboxed(program, nonce)
        return records[-1] if records else {}

    def values(self, missing: list[Any]) -> bool:
        """Ask the candidate for the values of calls; False where its code does not load."""
        nonce = secrets.token_hex(16)
        calls = missing[:MAX_CALLS]
        records = self.sandboxed(candidate_program(self.source, calls, nonce), nonce)
        if any("load" in record for record in records):
            return False
        for record in records:
            index = record.pop("n", None)
            if isinstance(index, int) and 0 <= index < len(calls):
                self.table.setdefault(json.dumps(calls[index]), record)
        for call in calls:  # the process ended before it came to these
            self.table.setdefault(json.dumps(call), {"e": "SystemExit"})
        return True

    def sandboxed(self, program: str, nonce: str) -> list[dict[str, Any]]:
        """What a program of ours reports after the nonce."""
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise _Timeout
        result = self.run(program, "", remaining)
        if str(result.status) == "timeout":
            raise _Timeout
        records = []
        for line in result.stdout.splitlines():
            if line.startswith(nonce):
                try:
                    records.append(json.loads(line[len(nonce) :]))
                except ValueError:
                    continue  # a line cut by the output limit reports nothing
        return [record for record in records if isinstance(record, dict)]
