"""The two programs that code verification runs in a sandbox, as text.

`candidate_program` holds the model's code and is asked for the values of calls; `test_program`
holds the tests and answers calls from a table of those values. Neither is imported here: this
module only builds text. What passes between them is plain data (`PACKING`), so that an object with
its own `__eq__` never meets an assertion.

A call is named by a digest of its step and of the call it follows: methods of one object form a
chain, whose earlier steps are replayed where the object is not at hand.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import symtable
import threading

PACKING = '''
import collections, itertools, json

_shared = {}  # the prelude's classes, whose objects may cross
_named = {}  # the candidate's own globals, which tests may pass to it by name
_BASES = (bool, int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict)
_MAKERS = {"deque": collections.deque, "iter": iter}
_MAKERS.update((kind.__name__, kind) for kind in (list, tuple, set, frozenset))
_LONGEST = 100_000  # most items of an iterator


def _pack(value):
    heap, seen = [], {}
    root = _plain(value, 0, heap, seen)
    for name, thing in heap:  # grows while it is walked: a linked list is no recursion
        attributes = {key: _plain(item, 0, heap, seen) for key, item in vars(thing).items()}
        seen[id(thing)][1].update(attributes)
    return {"g": [root, [[name, seen[id(thing)][1]] for name, thing in heap]]} if heap else root


def _plain(value, depth, heap, seen):
    kind = type(value)
    if value is None:
        return {"p": None}
    if depth > 50:
        return {"u": "deep"}
    if kind.__name__ == "_Function":
        return {"n": value.__name__}
    if kind.__name__ in _shared and isinstance(getattr(value, "__dict__", None), dict):
        if id(value) not in seen:
            seen[id(value)] = (len(heap), {})
            heap.append((kind.__name__, value))
        return {"o": seen[id(value)][0]}

    def items(iterable):
        return [_plain(item, depth + 1, heap, seen) for item in iterable]

    # The base's own methods: what a subclass overrides is not asked.
    base = next((base for base in _BASES if isinstance(value, base)), None)
    if base is bool:
        return {"p": value}
    if base is str:
        return {"p": str.__str__(value)}
    if base is int:
        return {"i": hex(int.__int__(value))}
    if base is float:
        return {"f": float.hex(value)}
    if base is complex:
        return {"c": [float.hex(value.real), float.hex(value.imag)]}
    if base is bytes or base is bytearray:
        return {"b": base.hex(value)}
    if base is dict:
        return {"d": [items(pair) for pair in dict.items(value)]}
    if base is set or base is frozenset:
        return {"s": base.__name__, "v": sorted(items(base.__iter__(value)), key=json.dumps)}
    if base is not None:
        return {"s": base.__name__, "v": items(base.__iter__(value))}
    if kind is range:
        return {"r": [value.start, value.stop, value.step]}
    if kind is collections.deque:
        return {"s": "deque", "v": items(value)}
    if hasattr(kind, "__next__"):
        return {"s": "iter", "v": items(itertools.islice(value, _LONGEST))}
    return {"u": kind.__name__}


class _Opaque:
    """A value that is no plain data; equal to nothing."""

    def __eq__(self, other):
        return False

    __hash__ = None


def _unpack(packed):
    if "g" not in packed:
        return _made(packed, ())
    root, heap = packed["g"]
    objects = [object.__new__(_shared[name]) for name, _ in heap]
    for thing, (_, attributes) in zip(objects, heap):
        for key, item in attributes.items():
            vars(thing)[key] = _made(item, objects)
    return _made(root, objects)


def _made(packed, objects):
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
    if tag == "r":
        return range(*value)
    if tag == "o":
        return objects[value]
    if tag == "n":
        return _named[value]
    if tag == "s":
        return _MAKERS[value]([_made(item, objects) for item in packed["v"]])
    if tag == "d":
        return {_made(k, objects): _made(v, objects) for k, v in value}
    return _Opaque()
'''
"""Plain data to JSON and back; everything else becomes a value that equals nothing."""

_CANDIDATE = """
import json, os, sys
sys.set_int_max_str_digits(0)
_nonce, _calls, _live = NONCE, json.loads(sys.stdin.read()), [None, None]
_space = _named = {"__name__": "candidate", "__builtins__": __builtins__}
# What the candidate prints is nobody's business here, and must not crowd out the values.
_report = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _emit(key, record, _write=os.write):
    text = ("\\n" + _nonce + key + " " + record + "\\n").encode()
    while text:
        text = text[_write(_report, text):]


def _object(key):
    if _live[0] != key:
        chain = []
        while key:
            chain.append(key)
            key = _calls[key][0]
        _live[:] = [None, None]
        for earlier in reversed(chain):
            _perform(earlier)
    return _live[1]


def _perform(key):
    after, text = _calls[key]
    step = json.loads(text)
    args = [_unpack(arg) for arg in step["args"]]
    kwargs = {name: _unpack(arg) for name, arg in step["kwargs"]}
    before = json.dumps(step["args"])
    subject = _object(after) if after else None
    target = getattr(subject, step["name"]) if after else _space[step["name"]]
    try:
        result = target(*args, **kwargs)
        if not after:
            subject = result
    finally:
        _live[:] = [key, subject]
    record = {"v": _pack(result)}
    changed = [_pack(arg) for arg in args]
    if json.dumps(changed) != before:
        record["a"] = changed
    return record


try:
    exec(compile(PRELUDE, "prelude", "exec"), _space)
    exec(compile(SOURCE, "candidate", "exec"), _space)
    _shared.update({name: _space[name] for name in SHARED})
except BaseException as error:
    _emit("load", type(error).__name__)
else:
    for _key in WANTED:
        try:
            _record = _perform(_key)
        except BaseException as error:
            # Its own kinds of error are known to the tests by what they are made from.
            kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
            _record = {"e": kinds[0]}
        _emit(_key, json.dumps(_record))
"""

_TEST = '''
import hashlib, json, os, random, sys
sys.set_int_max_str_digits(0)
_nonce, _strict = NONCE, STRICT
_table = json.loads(sys.stdin.read())
_missing, _stops = {}, []


class _Stop(BaseException):
    """The tests ask for a value that is not known yet, or pass on what can not cross."""


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


def _ask(after, name, args, kwargs):
    """The name of a call and its value, as far as it is known."""
    packed = [[key, _pack(value)] for key, value in kwargs.items()]
    step = {"name": name, "args": [_pack(arg) for arg in args], "kwargs": packed}
    text = json.dumps(step)
    key = hashlib.sha256((after + text).encode()).hexdigest()[:32]
    if '{"u": ' in text:
        if _strict:
            _stops.append("foreign")
            raise _Stop
        return key, _Any()
    if key not in _table:
        _missing[key] = [after, text]
        if _strict:
            _stops.append("missing")
            raise _Stop
        return key, _Any()
    record = json.loads(_table[key])
    if "e" in record:
        kind = vars(__builtins__).get(record["e"], RuntimeError)
        ok = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if ok else RuntimeError)("raised by the candidate")
    for arg, changed in zip(args, record.get("a", ())):
        _change(arg, _unpack(changed))
    return key, _unpack(record["v"])


def _change(arg, value):
    """What the candidate did to an argument."""
    if type(arg) is not type(value):
        return
    if type(arg) is list:
        arg[:] = value
    elif type(arg) in (dict, set):
        arg.clear()
        arg.update(value)
    elif type(arg) in _shared.values():
        vars(arg).clear()
        vars(arg).update(vars(value))


class _Instance:
    """An object of the candidate's, known by the call that made or last changed it."""

    def __init__(self, state):
        self._state = state

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self._state, value = _ask(self._state, name, args, kwargs)
            return value

        return call


class _Guess(_Instance, _Any):
    """What may be an object or a value; only a first reading meets it."""


class _Function:
    def __init__(self, name):
        self.__name__ = name

    def __call__(self, *args, **kwargs):
        key, value = _ask("", self.__name__, args, kwargs)
        if type(value) is _Any:
            return _Guess(key)
        return _Instance(key) if type(value) is _Opaque else value


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
    _shared.update({name: _space[name] for name in SHARED})
    _space.update({name: _Function(name) for name in NAMES})
    exec(compile(SOURCE, "tests", "exec"), _space)
except BaseException as error:
    _failed = type(error).__name__
# A bare `except` in the tests may have caught the stop: it counts all the same.
_record = {"failed": _stops[0] if _stops else _failed, "missing": _missing}
_text = ("\\n" + _nonce + "tests " + json.dumps(_record) + "\\n").encode()
while _text:
    _text = _text[os.write(1, _text):]
'''


def candidate_program(prelude: str, source: str, wanted: list[str], nonce: str) -> str:
    """The program that loads `source` and reports the value of each call in `wanted`.

    It reads all calls, `{key: [key before, step]}`, from stdin before it runs any of the source.
    """
    return (
        f"NONCE = {nonce!r}\nPRELUDE = {prelude!r}\nSOURCE = {source!r}\n"
        f"WANTED = {wanted!r}\nSHARED = {_classes(prelude)!r}\n" + PACKING + _CANDIDATE
    )


def test_program(prelude: str, tests: str, names: list[str], nonce: str, *, strict: bool) -> str:
    """The program that runs the tests against a table of known values, read from stdin.

    Args:
        strict: stop at the first value that is not known; else go on with a stand-in, and
            assertions decide nothing.
    """
    source = tests if strict else _without_assertions(tests)
    return (
        f"NONCE = {nonce!r}\nSTRICT = {strict}\nSOURCE = {source!r}\nPRELUDE = {prelude!r}\n"
        f"NAMES = {names!r}\nSHARED = {_classes(prelude)!r}\n" + PACKING + _TEST
    )


_PARSING = threading.Lock()


def _parsed(source: str) -> ast.Module:
    """The source's tree; one thread at a time.

    CPython 3.11 counts the depth of all threads' trees in one place, and raises SystemError when a
    collection of garbage switches threads between two of them (gh-106905).
    """
    with _PARSING:
        return ast.parse(source)


def _classes(prelude: str) -> list[str]:
    """The prelude's own classes: linked lists and trees, which calls take and return."""
    return [node.name for node in _parsed(prelude).body if isinstance(node, ast.ClassDef)]


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
    return ast.unparse(ast.fix_missing_locations(_Probing().visit(_parsed(tests))))


def tested_names(prelude: str, tests: str) -> list[str]:
    """Names that the tests use and nobody but the candidate defines.

    Raises:
        SyntaxError: prelude or tests are no Python.
    """
    used: set[str] = set()
    defined = set(dir(builtins))
    for text in (prelude, tests):
        _globals(symtable.symtable(text, "gold", "exec"), used, defined)
        for node in ast.walk(_parsed(text)):
            if isinstance(node, ast.ImportFrom):
                defined |= _starred(node)
    # Tests that use nothing but builtins test a function that shadows one (MBPP's `sum`).
    return sorted(used - defined) or sorted(used & set(dir(builtins)))


def _globals(table: symtable.SymbolTable, used: set[str], defined: set[str]) -> None:
    """Add the global names that a scope and those inside it use and define."""
    for symbol in table.get_symbols():
        if table.get_type() != "module" and not symbol.is_global():
            continue
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            defined.add(symbol.get_name())
        if symbol.is_referenced():
            used.add(symbol.get_name())
    for child in table.get_children():
        _globals(child, used, defined)


_STARRED = frozenset({"typing", "collections", "math", "itertools", "functools", "heapq", "bisect"})
"""Modules of the standard library whose `import *` in a prelude is looked into."""


def _starred(node: ast.ImportFrom) -> set[str]:
    """The names that `from module import *` brings."""
    if node.module not in _STARRED or not any(alias.name == "*" for alias in node.names):
        return set()
    module = importlib.import_module(node.module)
    public = getattr(module, "__all__", None)
    return set(public or (name for name in dir(module) if not name.startswith("_")))
