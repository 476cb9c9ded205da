"""Programs against tests in the real sandbox: right by their values alone, whatever they try."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from still_core.problems.problem import AnswerKind
from still_core.sandbox import Sandbox, SandboxStatus
from still_core.verify import Answer, Outcome, VerifierPool

pytestmark = pytest.mark.integration

SQUARES = ["assert f(2) == 4", "assert f(-3) == 9", "assert [f(n) for n in range(3)] == [0, 1, 4]"]
SECRET = 918273645


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2, code_deadline_s=4.0) as pool:
        yield pool


def program(source: str, tests: list[str], prelude: str = "") -> Answer:
    gold = json.dumps({"prelude": prelude, "tests": tests})
    return Answer(id="x", gold=gold, pred=f"```python\n{source}\n```", kind=AnswerKind.CODE)


def outcome(pool: VerifierPool, source: str, tests: list[str], prelude: str = "") -> Outcome:
    return pool.verify(program(source, tests, prelude)).outcome


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x * x", Outcome.CORRECT),
        ("def f(x):\n    print('debug' * 100_000)\n    return x * x", Outcome.CORRECT),
        ("from __future__ import annotations\ndef f(x: Any):\n    return x * x", Outcome.CORRECT),
        ("def f(x):\n    return x + x", Outcome.WRONG),
        ("def f(x)\n    return", Outcome.WRONG),
        ("def g(x):\n    return x * x", Outcome.WRONG),
        ("def f(x):\n    while True: pass", Outcome.TIMEOUT),
    ],
)
def test_a_program_is_right_when_its_values_are(
    pool: VerifierPool, source: str, expected: Outcome
) -> None:
    assert outcome(pool, source, SQUARES) is expected


TAMPERING = {
    "leaves with success": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef f(x):\n    os._exit(0)",
    "raises its way out": "def f(x):\n    raise SystemExit(0)",
    "kills itself": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)",
    "leaves at its end": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return 0",
    "equals everything": (
        "class Yes:\n    def __eq__(self, o): return True\n"
        "    def __ne__(self, o): return False\n    def __hash__(self): return 0\n"
        "def f(x):\n    return Yes()"
    ),
    "an int that equals everything": (
        "class Yes(int):\n    def __eq__(self, o): return True\ndef f(x):\n    return Yes(7)"
    ),
    "a list that equals everything": (
        "class Yes(list):\n    def __eq__(self, o): return True\ndef f(x):\n    return Yes([7])"
    ),
    "a reflected comparison": (
        "class Yes(int):\n    __eq__ = __le__ = __ge__ = lambda s, o: True\n"
        "    __req__ = __eq__\ndef f(x):\n    return Yes()"
    ),
    "lies about its class": "class Yes:\n    __class__ = int\ndef f(x):\n    return Yes()",
    "a name of the harness": (
        "class _Any:\n    pass\nclass _Opaque:\n    pass\ndef f(x):\n    return _Any()"
    ),
    "a global of the tests by name": (
        "class _Function:\n    __name__ = 'wanted'\ndef f(x):\n    return _Function()"
    ),
    "assertions switched off": (
        "import builtins, sys\nbuiltins.AssertionError = int\nsys.flags = None\n"
        "def f(x):\n    return 0"
    ),
    "builtins replaced": (
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\n"
        "builtins.compile = lambda *a, **k: None\nbuiltins.exec = lambda *a: None\n"
        "def f(x):\n    return 0"
    ),
    "json replaced": (
        'import json\njson.dumps = lambda *a, **k: \'{"i": "0x4"}\'\n'
        "json.loads = lambda *a: {}\ndef f(x):\n    return 0"
    ),
    "modules replaced": (
        "import sys\nfor name in ('json', 'os', 'hashlib', 'random'):\n"
        "    sys.modules[name] = None\ndef f(x):\n    return 0"
    ),
    "prints a pass": (
        "print('OK')\nprint('PASSED')\nprint('{\"failed\": \"\"}')\nprint('tests {}')\n"
        "def f(x):\n    return 0"
    ),
    "reports a pass under the nonce": (
        "import __main__, os\n"
        "def f(x):\n"
        '    text = \'\\n\' + __main__._nonce + \'tests {"failed": "", "missing": {}}\\n\'\n'
        "    os.write(__main__._report, text.encode() * 3)\n    os._exit(0)"
    ),
    "reports what is no JSON": (
        "import __main__\n"
        "def f(x):\n    for key in __main__._calls:\n        __main__._emit(key, 'gibberish')\n"
    ),
    "reports a tower of brackets": (
        "import __main__\n"
        "def f(x):\n    for key in __main__._calls:\n        __main__._emit(key, '[' * 100_000)\n"
    ),
    "reports endlessly": (
        "import __main__\n"
        "def f(x):\n    while True:\n        __main__._emit('load', 'x' * 1_000_000)\n"
    ),
    "closes its channels": "import os\nos.closerange(0, 64)\ndef f(x):\n    return 0",
    "writes a test configuration": (
        "open('conftest.py', 'w').write('def pytest_runtest_makereport(): pass')\n"
        "open('sitecustomize.py', 'w').write('')\ndef f(x):\n    return 0"
    ),
    "returns not a number": "def f(x):\n    return float('nan')",
    "returns a deep list": (
        "def f(x):\n    v = []\n    for _ in range(100_000): v = [v]\n    return v"
    ),
    "returns itself": "def f(x):\n    v = []\n    v.append(v)\n    return v",
    "returns much": "def f(x):\n    return 'x' * 50_000_000",
    "returns without end": "import itertools\ndef f(x):\n    return itertools.count()",
    "returns what it was asked": "def f(x):\n    return x",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_program_that_tampers_is_never_right(pool: VerifierPool, name: str) -> None:
    tests = ["wanted = 4", "assert f(2) == wanted", "assert f(-3) == 9", "assert f(2) != 5"]
    verdict = pool.verify(program(TAMPERING[name], tests))
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSABLE, Outcome.TIMEOUT)


def test_a_verifier_that_trusts_the_programs_own_process_is_fooled() -> None:
    fooled = []
    with Sandbox() as sandbox:
        for name, source in TAMPERING.items():
            result = sandbox.run("\n".join([source, *SQUARES]), timeout_s=2)
            if result.status is SandboxStatus.OK:
                fooled.append(name)
    assert {"leaves with success", "leaves when called", "equals everything"} <= {*fooled}


def test_expected_values_are_nowhere_to_be_found(pool: VerifierPool) -> None:
    source = f"""
import gc, glob, os, sys

def f(x):
    wanted = {SECRET} - 1  # looked for below; a real cheat would know its shape alone
    hay = [sys.stdin.read(), str(os.environ), str(sys.argv)]
    frame = sys._getframe()
    while frame:
        hay += [str(frame.f_globals.get(name)) for name in ("_calls", "WANTED", "PRELUDE")]
        frame = frame.f_back
    hay += [thing for thing in gc.get_objects() if isinstance(thing, str)]
    for path in glob.glob("/proc/[0-9]*/*") + glob.glob("/tmp/**", recursive=True):
        try:
            hay.append(open(path, errors="replace").read(1 << 20))
        except OSError:
            continue
    return wanted if any(str(wanted) in text for text in hay) else 0
"""
    tests = [f"assert f(2) == {SECRET - 1}"]
    assert outcome(pool, source, tests) is Outcome.WRONG
    # Where the value does stand, in the prelude, the same program finds it.
    assert outcome(pool, source, tests, prelude=f"HINT = {SECRET - 1}") is Outcome.CORRECT


def test_objects_keep_their_state_through_as_many_calls_as_the_tests_make(
    pool: VerifierPool,
) -> None:
    source = (
        "class Tally:\n    def __init__(self, n):\n        self.n = n\n"
        "    def add(self, k):\n        self.n += k\n        return self.n\n"
    )
    tests = ["one, two = Tally(3), Tally(3)", "one.add(4)", "two.add(1)", "one.add(5)"]
    tests += ["for n in range(300): last = one.add(n)", "assert last == 12 + 44850"]
    tests += ["assert two.add(0) == 4"]
    assert outcome(pool, source, tests) is Outcome.CORRECT
    assert outcome(pool, source.replace("+= k", "+= k + 1"), tests) is Outcome.WRONG


LINKED = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def linked(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def same(one, other):
    while one and other and one.val == other.val:
        one, other = one.next, other.next
    return one is None and other is None
"""


def test_objects_of_the_preludes_classes_go_in_and_come_back(pool: VerifierPool) -> None:
    source = """
class Solution:
    def flip(self, head):
        last = None
        while head:
            head.next, last, head = last, head, head.next
        return last
"""
    tests = ["assert same(Solution().flip(linked(range(400))), linked(range(399, -1, -1)))"]
    assert outcome(pool, source, tests, LINKED) is Outcome.CORRECT
    assert outcome(pool, source.replace("return last", "return head"), tests, LINKED) is (
        Outcome.WRONG
    )
    own_class = "class ListNode:\n    def __eq__(self, o): return True\n" + source
    assert outcome(pool, own_class, tests, LINKED) is Outcome.CORRECT
    cheat = "class ListNode:\n    val = property(lambda s: 0)\n    next = None\n"
    cheat += "class Solution:\n    def flip(self, head):\n        return ListNode()\n"
    assert outcome(pool, cheat, tests, LINKED) is Outcome.WRONG


def test_what_can_not_cross_is_an_error_and_not_a_wrong_answer(pool: VerifierPool) -> None:
    verdict = pool.verify(program("def f(g):\n    return g(2)", ["assert f(lambda x: x) == 2"]))
    assert (verdict.outcome, verdict.rule) == (Outcome.ERROR, "tests_pass_objects")
    verdict = pool.verify(program("def f(x):\n    return x", ["two = 1 + 1\nassert two == 2"]))
    assert (verdict.outcome, verdict.rule) == (Outcome.ERROR, "tests_call_nothing")
    for gold in ("{}", "no json", '{"tests": ["assert f("]}', "[" * 9000):
        answer = Answer(id="x", gold=gold, pred="def f(): return 1", kind=AnswerKind.CODE)
        assert pool.verify(answer).outcome is Outcome.ERROR


def test_tests_that_loop_over_what_they_are_given_still_end(pool: VerifierPool) -> None:
    tests = [
        "n = 6",
        "steps = 0",
        "while f(n):",
        "    n, steps = f(n), steps + 1",
        "assert steps == 5",
    ]
    with VerifierPool(code_deadline_s=20.0) as patient:
        assert outcome(patient, "def f(n):\n    return n - 1", ["\n".join(tests)]) is (
            Outcome.CORRECT
        )


def test_the_block_that_defines_what_is_tested_is_the_program(pool: VerifierPool) -> None:
    response = (
        "<think>```python\ndef f(x):\n    return 0\n```</think>\nHere:\n"
        "```python\ndef f(x):\n    return x * x\n```\nIt is used so:\n"
        "```python\nprint(f(3))\n```\nwhich prints\n```\n9\n```\n"
    )
    gold = json.dumps({"tests": SQUARES})
    answer = Answer(id="x", gold=gold, pred=response, kind=AnswerKind.CODE)
    assert pool.verify(answer).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("print(sum(map(int, input().split())))", Outcome.CORRECT),
        ("print(sum(map(int, input().split())), end='\\n\\n  \\n')", Outcome.CORRECT),
        ("print(5)", Outcome.WRONG),
        ("import sys\nsys.exit(0)", Outcome.WRONG),
        ("print(5)\nprint(6)\nprint('OK')", Outcome.WRONG),
        ("import os\nos.write(1, b'5\\n6\\n' * 9)\nos._exit(0)", Outcome.WRONG),
        ("while True: print(5)", Outcome.TIMEOUT),
    ],
)
def test_what_programs_print_is_compared_outside(
    pool: VerifierPool, source: str, expected: Outcome
) -> None:
    gold = json.dumps({"stdin": [["2 3\n", "5\n"], ["10 -4\n", "6"]]})
    answer = Answer(id="x", gold=gold, pred=f"```python\n{source}\n```", kind=AnswerKind.CODE)
    assert pool.verify(answer).outcome is expected


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    """The benchmark that runs all reference solutions and their mutants."""
    path = Path(__file__).parents[1] / "benchmarks" / "code_references.py"
    spec = importlib.util.spec_from_file_location("code_references", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.slow, id="all")])
def test_reference_solutions_are_correct_and_changed_ones_wrong(
    shared_data: Path, campaign: ModuleType, every: int
) -> None:
    cases = [case for name in campaign.FILES for case in campaign.references(shared_data, name)]
    cases = cases[::every]
    mutants = [mutant for case in cases for mutant in campaign.changed(case, 2)]
    done = campaign.campaign(cases, campaign.REFERENCE_S)
    done += campaign.campaign(mutants, campaign.MUTANT_S)
    assert sum(case.passes for case in done) >= len(cases) - 1  # MBPP's 367 reads a global
    assert [note for note in campaign.notes(done) if "fails its own" not in note] == []
