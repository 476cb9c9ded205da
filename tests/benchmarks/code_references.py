"""Reference solutions of HumanEval, MBPP and LeetCode, and changed ones, through the verifier.

    python tests/benchmarks/code_references.py ../shared/data

Every program is also run with its tests in plain Python (in one sandbox, by its end alone), which
shares nothing with `still_core.verify.code`: a changed program that still passes there does the
same on the tests' inputs, and is listed with `--equivalent FILE`. LeetCode's file has no reference
solutions: hand-written ones stand in `code_solutions.py`, and for all its problems a program that
looks the answers up, read from the tests.
"""

# ruff: noqa: E501 - table rows
from __future__ import annotations

import argparse
import ast
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from still_core.problems.collect import collect
from still_core.problems.problem import AnswerKind, Problem
from still_core.problems.recipe import SourceSpec
from still_core.sandbox import Limits, Sandbox
from still_core.verify import Answer, Outcome, VerifierPool

sys.path.insert(0, str(Path(__file__).parent))
from code_mutants import mutants, other_values
from code_solutions import SOLUTIONS

REFERENCE_S, MUTANT_S = 60.0, 6.0
"""Wall-clock seconds of a reference's run and of a mutant's, which may not end."""
FILES = {
    "HumanEval": ("HumanEval.jsonl.gz", "humaneval", ()),
    "MBPP": ("mbpp_test.jsonl", "mbpp", ()),
    "LeetCode": ("leetcode_20240121-Jul.jsonl", "leetcode", ("Easy", "Medium", "Hard")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A program beside its problem's gold."""

    group: str
    problem: str
    gold: str
    source: str
    change: str = ""
    """What was changed; empty for a reference."""
    passes: bool = False
    """Whether it passes its tests in plain Python."""
    outcome: Outcome = Outcome.ERROR
    rule: str = ""

    def as_answer(self) -> Answer:
        """As a model would give it."""
        pred = f"```python\n{self.source}\n```"
        return Answer(id=self.problem, gold=self.gold, pred=pred, kind=AnswerKind.CODE)


def references(data: Path, name: str) -> Iterator[Case]:
    """The programs that must pass."""
    file, adapter, subsets = FILES[name]
    spec = SourceSpec(name=name.lower(), adapter=adapter, path=str(data / file), subsets=subsets)
    problems = collect([spec]).problems
    if name != "LeetCode":
        yield from (_case(name, problem, problem.solution) for problem in problems)
        return
    with (data / file).open(encoding="utf-8") as lines:
        titles = [json.loads(line)["meta"]["titleSlug"] for line in lines]
    for problem in problems:
        yield _case("LeetCode, looked up", problem, looked_up(problem.gold))
        if titles[problem.row] in SOLUTIONS:
            yield _case("LeetCode, by hand", problem, SOLUTIONS[titles[problem.row]])


def _case(group: str, problem: Problem, source: str) -> Case:
    source = source.replace("\r\n", "\n")
    return Case(group=group, problem=problem.id, gold=problem.gold, source=source)


def looked_up(gold: str) -> str:
    """A program that returns what the asserts of a contest problem's tests demand."""
    table: dict[str, object] = {}
    given: object = None
    method = ""
    for node in ast.parse("\n".join(json.loads(gold)["tests"])).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            given = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            assert isinstance(node.test.left, ast.Call)
            assert isinstance(node.test.left.func, ast.Attribute)
            method = node.test.left.func.attr
            table[repr(given)] = ast.literal_eval(node.test.comparators[0])
    return (
        f"ANSWERS = {table!r}\n\nclass Solution:\n    def {method}(self, **given):\n"
        "        return ANSWERS[repr(given)]\n"
    )


def changed(case: Case, count: int) -> Iterator[Case]:
    """The case's mutants; of a table of answers, one answer is changed."""
    if case.source.startswith("ANSWERS"):
        rng = random.Random(case.problem)
        head, _, body = case.source.partition("\n")
        table = ast.literal_eval(head.removeprefix("ANSWERS = "))
        for key in rng.sample(sorted(table), min(count, len(table))):
            other = {**table, key: _other(table[key])}
            said = f"{table[key]!r} to {other[key]!r}"
            yield replace(case, source=f"ANSWERS = {other!r}\n{body}", change=said[:80])
        return
    found = mutants(case.source, count, seed=sum(case.problem.encode()))
    if "class Solution" not in case.source:
        found.append(other_values(case.source))
    for mutant in found:
        yield replace(case, source=mutant.source, change=mutant.change)


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return [*value, 0] if isinstance(value, list) else f"{value}x"


def judged(case: Case, sandbox: Sandbox, pool: VerifierPool) -> Case:
    """The case with its end in plain Python and its verdict."""
    gold = json.loads(case.gold)
    done = secrets.token_hex(8)
    # The helpers that tests call are the gold's, whatever the program calls by the same name.
    parts = [gold["prelude"], case.source, gold["prelude"], *gold["tests"], f"print({done!r})"]
    program = "\n".join(parts)
    seconds = MUTANT_S if case.change else REFERENCE_S
    result = sandbox.run(program, timeout_s=seconds)
    passes = result.stdout.rstrip().endswith(done)
    verdict = pool.verify(case.as_answer())
    return replace(case, passes=passes, outcome=verdict.outcome, rule=verdict.rule)


def campaign(cases: list[Case], seconds: float) -> list[Case]:
    """All cases judged, two at a time."""
    limits = Limits(memory_mb=1024)
    with (
        Sandbox(limits, warm=2) as sandbox,
        VerifierPool(workers=2, code_deadline_s=seconds) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        return list(threads.map(lambda case: judged(case, sandbox, pool), cases))


def table(cases: list[Case]) -> Iterator[str]:
    """One row per group; by what the programs do in plain Python."""
    yield "| programs | references | verified correct | mutants that fail the tests | not accepted | mutants that pass the tests | accepted |"
    yield "|---|---|---|---|---|---|---|"
    for group in dict.fromkeys(case.group for case in cases):
        chosen = [case for case in cases if case.group == group]
        good = [case for case in chosen if not case.change and case.passes]
        failing = [case for case in chosen if case.change and not case.passes]
        passing = [case for case in chosen if case.change and case.passes]
        refused = sum(case.outcome is not Outcome.CORRECT for case in failing)
        cells = [
            len(good),
            _accepted(good),
            len(failing),
            refused,
            len(passing),
            _accepted(passing),
        ]
        yield f"| {group} | " + " | ".join(map(str, cells)) + " |"


def _accepted(cases: list[Case]) -> int:
    return sum(case.outcome is Outcome.CORRECT for case in cases)


def notes(cases: list[Case]) -> Iterator[str]:
    """References that fail their own tests, and every verdict against what plain Python did."""
    for case in cases:
        said = f"{case.group} {case.problem} {case.change}: {case.outcome} by {case.rule}"
        if not case.change and not case.passes:
            yield f"fails its own tests in plain Python: {said}"
        elif case.passes != (case.outcome is Outcome.CORRECT):
            yield f"{'passes' if case.passes else 'fails'} in plain Python, but {said}"


def main() -> None:
    """Run the groups asked for and print table and notes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--mutants", type=int, default=3, help="changes of each program")
    parser.add_argument("--every", type=int, default=1, help="take every n-th problem")
    parser.add_argument("--equivalent", type=Path, help="write mutants that pass the tests here")
    chosen = parser.parse_args()
    started = time.perf_counter()
    cases = [case for name in chosen.sets for case in references(chosen.data, name)]
    cases = cases[:: chosen.every]
    altered = [mutant for case in cases for mutant in changed(case, chosen.mutants)]
    done = campaign(cases, REFERENCE_S) + campaign(altered, MUTANT_S)
    print("\n".join(table(done)) + "\n")
    print("\n".join(f"- {note}" for note in notes(done)))
    same = [f"{case.problem} {case.change}" for case in done if case.change and case.passes]
    if chosen.equivalent is not None:
        chosen.equivalent.write_text("\n".join(same) + "\n", encoding="utf-8")
    versions = f"Python {sys.version.split()[0]}; load {os.getloadavg()[0]:.1f}"
    print(f"\n{len(done)} programs in {time.perf_counter() - started:.0f} s; {versions}.")


if __name__ == "__main__":
    main()
