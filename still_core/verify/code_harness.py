"""The two programs that code verification runs in a sandbox, as text.

`candidate_program` holds the model's code and is asked for the values of calls; `test_program`
holds the tests and answers calls from a table of those values. Neither is imported here: this
module only builds text. What passes between them is plain data (`PACKING`), so that an object with
its own `__eq__` never meets an assertion.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
from typing import Any

PACKING = '''
def _pack(value, depth=0):
    if depth > 50:
        return {"u": "deep"}
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return {"p": value}
    if kind is int:
        return {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}
    if kind is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if kind in (bytes, bytearray):
        return {"b": value.hex()}
    if kind in (list, tuple, set, frozenset) or kind.__name__ in ("deque", "range"):
        name = "list" if kind.__name__ in ("deque", "range") else kind.__name__
        items = [_pack(item, depth + 1) for item in value]
        return {"s": name, "v": items}
    if isinstance(value, dict):
        return {"d": [[_pack(k, depth + 1), _pack(v, depth + 1)] for k, v in value.items()]}
    if isinstance(value, (bool, int, float, str)) and kind.__module__ != "candidate":
        return _pack(next(base for base in (bool, int, float, str) if isinstance(value,
        base))(value))
    return {"u": kind.__name__}


class _Opaque:
    """A value that is no plain data; equal to nothing."""

    def __eq__(self, other):
        return False

    __hash__ = None


def _unpack(packed):
    (tag, value), = [(k, v) for k, v in packed.items() if k != "v"]
    if tag == "p":
        return value
    if tag == "i":
        return int(value, 16)
    if tag == "f":
        return float.fromhex(value)
    if tag == "c":
        return complex(*map(float.fromhex, value))
    if tag == "b":
        return bytes.fromhex(value)
    if tag == "s":
        make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[value]
        return make(_unpack(item) for item in packed["v"])
    if tag == "d":
        return {_unpack(k): _unpack(v) for k, v in value}
    return _Opaque()
'''
"""Plain data to JSON and back; everything else becomes a value that equals nothing."""

_CANDIDATE = """
import io, json, os, sys
sys.set_int_max_str_digits(0)
_write, _nonce = os.write, NONCE
_space = {"__name__": "candidate", "__builtins__": __builtins__}


def _emit(record, _dumps=json.dumps):
    text = ("\\n" + _nonce + _dumps(record) + "\\n").encode()
    while text:
        text = text[_write(1, text):]


def _perform(history):
    target = None
    for step in history:
        args = [_unpack(arg) for arg in step["args"]]
        kwargs = {name: _unpack(arg) for name, arg in step["kwargs"]}
        if target is None:
            target = _space[step["name"]]
        elif step["name"]:
            target = getattr(subject, step["name"])
        before = json.dumps(step["args"])
        result = target(*args, **kwargs)
        after = [_pack(arg) for arg in args]
        if step is history[0]:
            subject = result
    record = {"v": _pack(result)}
    if json.dumps(after) != before:
        record["a"] = after
    return record


try:
    exec(compile(SOURCE, "candidate", "exec"), _space)
except BaseException as error:
    _emit({"load": type(error).__name__})
else:
    for _index, _history in enumerate(json.loads(CALLS)):
        try:
            _record = _perform(_history)
        except BaseException as error:
            _record = {"e": type(error).__name__}
        _emit({"n": _index, **_record})
    _emit({"done": True})
"""

_TEST = '''
import json, os, random, sys
sys.set_int_max_str_digits(0)
_nonce, _strict = NONCE, STRICT
_table = json.loads(TABLE)
_missing = {}


class _Missing(BaseException):
    pass


class _Any:
    """Stands for a value not known yet, so that a first reading finds as many calls as it can."""

    def _same(self, *args, **kwargs):
        return self

    def __iter__(self):
        return iter(())

    def __bool__(self):
        return True

    def __len__(self):
        return 0

    def __hash__(self):
        return 0

    def __index__(self):
        return 0

    def __float__(self):
        return 0.0

    __call__ = __getitem__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _same
    __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __neg__ = __abs__ = _same
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __round__ = _same


def _step(name, args, kwargs):
    packed = [[key, _pack(value)] for key, value in kwargs.items()]
    return {"name": name, "args": [_pack(arg) for arg in args], "kwargs": packed}


def _ask(history, args):
    key = json.dumps(history)
    record = _table.get(key)
    if record is None and '{"u": "_Any"}' in key:
        return _Any()
    if record is None:
        _missing[key] = history
        if _strict:
            raise _Missing
        return _Any()
    if "e" in record:
        kind = getattr(__builtins__, record["e"], RuntimeError)
        ok = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if ok else RuntimeError)("raised by the candidate")
    for arg, changed in zip(args, record.get("a", ())):
        value = _unpack(changed)
        if type(arg) is list and type(value) is list:
            arg[:] = value
        elif type(arg) in (dict, set) and type(value) is type(arg):
            arg.clear()
            arg.update(value)
    return _unpack(record["v"])


class _Instance:
    """An object of the candidate's: each call replays the object's whole history."""

    def __init__(self, history):
        self._history = history

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self._history = [*self._history, _step(name, args, kwargs)]
            return _ask(self._history, args)

        return call


class _Guess(_Instance, _Any):
    """What may be an object or a value; only a first reading meets it."""


class _Function:
    def __init__(self, name):
        self.__name__ = name

    def __call__(self, *args, **kwargs):
        history = [_step(self.__name__, args, kwargs)]
        value = _ask(history, args)
        if type(value) is _Any:
            return _Guess(history)
        return _Instance(history) if type(value) is _Opaque else value


def _probe(check):
    try:
        check()
    except Exception:
        return None


random.seed(20250604)
_space = {"__name__": "tests", "_probe": _probe, **{name: _Function(name) for name in NAMES}}
_failed = ""
try:
    exec(compile(PRELUDE, "prelude", "exec"), _space)
    _space.update({name: _Function(name) for name in NAMES})
    exec(compile(SOURCE, "tests", "exec"), _space)
except _Missing:
    _failed = "missing"
except BaseException as error:
    _failed = type(error).__name__
_record = {"failed": _failed, "missing": list(_missing.values())}
os.write(1, ("\\n" + _nonce + json.dumps(_record) + "\\n").encode())
'''


def candidate_program(source: str, calls: list[Any], nonce: str) -> str:
    """The program that loads `source` and reports the value of each call after the nonce."""
    return (
        f"NONCE = {nonce!r}\nSOURCE = {source!r}\nCALLS = {json.dumps(calls)!r}\n"
        + PACKING
        + _CANDIDATE
    )


def test_program(
    prelude: str, tests: str, names: list[str], table: dict[str, Any], nonce: str, *, strict: bool
) -> str:
    """The program that runs the tests against a table of known values.

    Args:
        strict: stop at the first value that is not known; else go on with a stand-in, and
            assertions decide nothing.
    """
    source = tests if strict else _without_assertions(tests)
    return (
        f"NONCE = {nonce!r}\nSTRICT = {strict}\nSOURCE = {source!r}\nPRELUDE = {prelude!r}\n"
        f"NAMES = {names!r}\nTABLE = {json.dumps(table)!r}\n" + PACKING + _TEST
    )


class _Probing(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """An assertion becomes a look at its condition."""
        check = ast.Lambda(
            args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]),
            body=node.test,
        )
        call = ast.Call(func=ast.Name(id="_probe", ctx=ast.Load()), args=[check], keywords=[])
        return ast.copy_location(ast.Expr(call), node)


def _without_assertions(tests: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Probing().visit(ast.parse(tests))))


def tested_names(prelude: str, tests: str) -> list[str]:
    """Names that the tests use and nobody but the candidate defines.

    Raises:
        SyntaxError: the tests are no Python.
    """
    used: set[str] = set()
    defined: set[str] = set(dir(builtins))
    for tree in (ast.parse(prelude), ast.parse(tests)):
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.arg):
                defined.add(node.arg)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
                if isinstance(node, ast.ImportFrom):
                    defined |= _starred(node)
    # Tests that use nothing but builtins test a function that shadows one (MBPP's `sum`).
    return sorted(used - defined) or sorted(used & set(dir(builtins)))


_STARRED = frozenset({"typing", "collections", "math", "itertools", "functools", "heapq", "bisect"})
"""Modules of the standard library whose `import *` in a prelude is looked into."""


def _starred(node: ast.ImportFrom) -> set[str]:
    """The names that `from module import *` brings."""
    if node.module not in _STARRED or not any(alias.name == "*" for alias in node.names):
        return set()
    module = importlib.import_module(node.module)
    public = getattr(module, "__all__", None)
    return set(public or (name for name in dir(module) if not name.startswith("_")))
