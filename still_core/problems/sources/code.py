"""Sources whose answers are programs. The gold is JSON: the tests a program has to pass.

    {"language": "python", "prelude": "...", "tests": ["assert f(1) == 2", ...]}
    {"language": "python", "prelude": "", "stdin": [["input", "expected output"], ...]}

`prelude` runs before the answer's code (imports, type names), each test after it.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from still_core.problems.fields import at, first, optional_text, text, texts
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.rows import MalformedRow
from still_core.problems.sources.adapter import Context, FilteredRow, ProblemDraft, register

LEETCODE_PRELUDE = (
    "from typing import *\nfrom collections import *\nfrom math import *\n"
    "from builtins import pow\n"  # not math's, which takes no modulus
)
"""Names that LeetCode's own judge has at hand."""
_LEVELS = {"easy": 1.0, "medium": 2.0, "hard": 3.0}


def code_gold(tests: list[str], *, prelude: str = "", entry_point: str = "") -> str:
    """The JSON gold of assert-style tests.

    Raises:
        FilteredRow: no_gold, there are no tests.
    """
    kept = [test for test in tests if test.strip()]
    if not kept:
        raise FilteredRow("no_gold")
    gold = {"language": "python", "prelude": prelude, "entry_point": entry_point, "tests": kept}
    return json.dumps(gold, ensure_ascii=True)


def cases_gold(value: Any) -> str:
    """The JSON gold of input/output cases (TACO and APPS, as OpenThoughts holds them).

    With a function name the cases are calls, else programs with stdin and stdout.

    Raises:
        FilteredRow: no_gold, there are no cases.
        MalformedRow: the cases are no JSON object of inputs and outputs.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise MalformedRow("mistyped_field", "test_cases: not JSON") from None
    if not value:
        raise FilteredRow("no_gold")
    inputs, outputs, name = at(value, "inputs"), at(value, "outputs"), at(value, "fn_name")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs)):
        raise MalformedRow("mistyped_field", "test_cases: expected as many inputs as outputs")
    if not inputs:
        raise FilteredRow("no_gold")
    pairs = list(zip(inputs, outputs, strict=True))
    if isinstance(name, str) and name.isidentifier():
        return code_gold([_call_test(name, given, wanted) for given, wanted in pairs])
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise MalformedRow("mistyped_field", "test_cases: expected texts")
    return json.dumps({"language": "python", "prelude": "", "stdin": [list(p) for p in pairs]})


def _call_test(name: str, given: Any, wanted: Any) -> str:
    arguments = ", ".join(repr(one) for one in given) if isinstance(given, list) else repr(given)
    # TACO wraps a single return value in a list of one.
    result = wanted[0] if isinstance(wanted, list) and len(wanted) == 1 else wanted
    return f"assert {name}({arguments}) == {result!r}"


def _draft(
    statement: str, gold: str, *, level: float | None = None, solution: str = ""
) -> ProblemDraft:
    return ProblemDraft(
        statement=statement,
        gold=gold,
        kind=AnswerKind.CODE,
        domain="code",
        bucket=Bucket.OTHER,
        level=level,
        solution=solution,
    )


@register("leetcode", licence="MIT (collection)")
def leetcode(row: Any, context: Context) -> ProblemDraft:
    """LeetCode; keeps "Hard" unless the spec's subsets say otherwise (STILL-2 section 2.2.1)."""
    difficulty = text(row, "meta.difficulty", "difficulty")
    if not context.keeps(difficulty, ("Hard",)):
        raise FilteredRow("other_difficulty")
    test = text(row, "test", "tests")
    entry_point = optional_text(row, "entry_point")
    # LeetCodeDataset defines check(candidate); the contest files call Solution() themselves.
    if "def check(" in test and entry_point:
        test = f"{test}\ncheck({entry_point})\n"
    prelude = optional_text(row, "prompt") if "prompt_sft" not in row else LEETCODE_PRELUDE
    return _draft(
        text(row, "prompt_sft", "query", "problem_description", "content"),
        code_gold([test], prelude=prelude or LEETCODE_PRELUDE, entry_point=entry_point),
        level=_LEVELS.get(difficulty.lower()),
        solution=optional_text(row, "completion", "solution"),
    )


@register("opencoder", licence="MIT")
def opencoder(row: Any, context: Context) -> ProblemDraft:
    """OpenCoder; rows of its other parts have no tests and are left out as no_gold."""
    statement = text(row, "instruction")
    tests = at(row, "testcase")
    if tests is None:
        raise FilteredRow("no_gold")
    listed = [tests] if isinstance(tests, str) else texts(row, "testcase")
    return _draft(
        statement,
        code_gold(listed, entry_point=optional_text(row, "entry_point")),
        solution=optional_text(row, "code", "output"),
    )


@register("humaneval", licence="MIT")
def humaneval(row: Any, context: Context) -> ProblemDraft:
    """HumanEval: the prompt is the head of the function that the answer completes."""
    entry_point = text(row, "entry_point")
    prompt = text(row, "prompt")
    gold = code_gold(
        [f"{text(row, 'test')}\ncheck({entry_point})\n"],
        prelude=f"from typing import *\n{_before(entry_point, prompt)}\n",
        entry_point=entry_point,
    )
    ask = f"Complete this Python function:\n\n```python\n{prompt}\n```"
    # Taken as it stands: its first line's indentation is part of the program.
    body = first(row, "canonical_solution")
    solution = f"{prompt}\n{body}" if isinstance(body, str) else ""
    return _draft(ask, gold, solution=solution)


def _before(entry_point: str, prompt: str) -> str:
    """The prompt's imports and helpers, which tests may call; nothing where it is no Python."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    kept = [node for node in tree.body if getattr(node, "name", "") != entry_point]
    return ast.unparse(ast.Module(body=kept, type_ignores=[]))


@register("mbpp", licence="CC-BY-4.0")
def mbpp(row: Any, context: Context) -> ProblemDraft:
    """MBPP; the first test is shown, as it alone names the function."""
    name = "test" if first(row, "test") is not None else "test_list"
    tests = texts(row, name)
    gold = code_gold(tests, prelude=optional_text(row, "test_setup_code"))
    statement = f"{text(row, 'prompt', 'text')}\n\nYour code should pass this test:\n{tests[0]}"
    return _draft(statement, gold, solution=optional_text(row, "code"))
