"""The sandbox as its callers use it: programs, sessions, missing layers, separation, load."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from still_core.errors import ConfigError, SandboxError
from still_core.sandbox import Layer, Limits, Sandbox, SandboxStatus, bubblewrap
from still_core.sandbox.limits import OPTIONAL

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(timeout_s=5, memory_mb=256)) as made:
        yield made


# ---- programs


def test_a_program_reads_its_input_and_prints(sandbox: Sandbox) -> None:
    result = sandbox.run(
        "n = int(input())\nprint(sum(int(input()) for _ in range(n)))", "2\n3\n4\n"
    )
    assert (result.status, result.stdout, result.exit_code) == (SandboxStatus.OK, "7\n", 0)


def test_input_of_ten_megabytes_arrives_whole(sandbox: Sandbox) -> None:
    result = sandbox.run("import sys\nprint(len(sys.stdin.read()))", "x" * 10_000_000)
    assert result.stdout == "10000000\n"


def test_source_of_a_megabyte_runs(sandbox: Sandbox) -> None:
    assert sandbox.run("x = '" + "y" * 1_000_000 + "'\nprint(len(x))").stdout == "1000000\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "status"),
    [
        ("import sys; sys.exit()", 0, "ok"),
        ("import sys; sys.exit(3)", 3, "error"),
        ("import sys; sys.exit('no')", 1, "error"),
        ("exit(4)", 4, "error"),
        ("1 / 0", 1, "error"),
        ("def f(:", 1, "error"),
        ("import os; os._exit(7)", 7, "error"),
        ("raise MemoryError", 1, "memory"),
        ("import os; os.kill(os.getpid(), 9)", None, "killed"),
    ],
)
def test_the_end_of_a_program_is_reported(
    sandbox: Sandbox, code: str, exit_code: int | None, status: str
) -> None:
    result = sandbox.run(code)
    assert (result.exit_code, result.status.value) == (exit_code, status)


def test_a_traceback_shows_the_line_and_no_frame_of_ours(sandbox: Sandbox) -> None:
    result = sandbox.run("def f():\n    return 1 / 0\nf()")
    assert result.error == "ZeroDivisionError"
    assert "line 2, in f" in result.stderr
    assert "return 1 / 0" in result.stderr
    assert "guest" not in result.stderr


def test_exit_handlers_threads_and_buffers_come_to_their_end(sandbox: Sandbox) -> None:
    code = (
        "import atexit, sys, threading, time\natexit.register(print, 'handler')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()\n"
        "sys.stdout.write('main ')"
    )
    assert sandbox.run(code).stdout == "main thread\nhandler\n"


def test_output_before_the_deadline_is_kept(sandbox: Sandbox) -> None:
    result = sandbox.run("print('first')\nwhile True: pass", timeout_s=0.3)
    assert (result.status, result.stdout) == (SandboxStatus.TIMEOUT, "first\n")
    assert 0.3 <= result.seconds < 1.3


def test_long_output_is_cut_and_counted() -> None:
    with Sandbox(Limits(output_bytes=1000), warm=0) as small:
        result = small.run("print('x' * 5000)")
    assert result.stdout == "x" * 1000
    assert (result.stdout_truncated, result.stdout_bytes) == (True, 5001)
    assert not result.stderr_truncated


def test_files_and_their_bytes_are_bounded() -> None:
    many = "import os\nn = 0\ntry:\n    while True: open(f'/tmp/{n}', 'x').close(); n += 1\n"
    large = "n = 0\nf = open('/tmp/x', 'wb', 0)\ntry:\n    while True: n += f.write(bytes(65536))\n"
    caught = "except OSError as error: print(n, error.errno)"
    with Sandbox(Limits(num_files=100, disk_mb=4), warm=0) as small:
        # The folder itself is one of them.
        assert small.run(many + caught).stdout == f"99 {errno.ENOSPC}\n"
        assert small.run(large + caught).stdout == f"{4 * 2**20} {errno.EFBIG}\n"
        spread = large.replace("f = open('/tmp/x', 'wb', 0)\n", "").replace(
            "n += f.write(bytes(65536))", "n += open(f'/tmp/{n}', 'wb', 0).write(bytes(65536))"
        )
        assert small.run(spread + caught).stdout == f"{4 * 2**20} {errno.ENOSPC}\n"


def test_a_value_comes_back_as_json(sandbox: Sandbox) -> None:
    result = sandbox.run("answer = {'a': [1, 2.5, None, True], 'b': 'x\\u00e9'}", value_of="answer")
    assert result.value == {"a": [1, 2.5, None, True], "b": "x\u00e9"}
    assert result.value_defect == ""


FORGED_VALUE = """
import os, socket
socket.socket(fileno=3).send(b'{"error": "", "defect": ""}\\n' + %s)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("code", "defect"),
    [
        ("pass", "none"),
        ("value = object()", "not JSON"),
        ("value = float('nan')", "not JSON"),
        ("value = 'x' * 10**6", "too long"),
        ("value = []\nfor _ in range(100): value = [value]", "too deep"),
        (FORGED_VALUE % 'b\'{"a": 1, "a": 2}\'', "not JSON"),
        (FORGED_VALUE % "b'NaN'", "not JSON"),
        (FORGED_VALUE % "b'[' * 60000", "too deep"),
        (FORGED_VALUE % "b'1' * 60000", "not JSON"),
        (FORGED_VALUE % "b'1' * 100000", "too long"),
        (FORGED_VALUE % "bytes([255])", "not JSON"),
    ],
)
def test_what_is_no_plain_value_is_a_named_defect(sandbox: Sandbox, code: str, defect: str) -> None:
    result = sandbox.run(code, value_of="value")
    assert (result.value, result.value_defect) == (None, defect)


@pytest.mark.parametrize(
    "code",
    [
        # What an executor could say in the driver's stead; only its own reply is believed.
        'socket.socket(fileno=3).send(b\'{"event": "end", "exit": 0, "nonce": ""}\')',
        'socket.socket(fileno=3).send(b\'{"event": "end"\')',
        "socket.socket(fileno=3).send(b'')",
        "os.close(3)",
    ],
)
def test_a_forged_end_does_not_hide_a_failure(sandbox: Sandbox, code: str) -> None:
    result = sandbox.run(f"import os, socket\n{code}\nos._exit(9)")
    assert (result.status, result.exit_code) == (SandboxStatus.ERROR, 9)


def test_packages_are_there_only_when_asked_for(sandbox: Sandbox) -> None:
    assert sandbox.run("import sympy").error == "ModuleNotFoundError"
    with Sandbox(
        Limits(timeout_s=30), packages=("sympy", "numpy"), preload=("sympy", "numpy"), warm=0
    ) as tools:
        result = tools.run(
            "import sympy, numpy\nx = sympy.symbols('x')\n"
            "print(sympy.integrate(2 * x, x), numpy.arange(3).sum())"
        )
        assert result.stdout == "x**2 3\n"
        assert tools.run("import pydantic").error == "ModuleNotFoundError"


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-package"):
        Sandbox(packages=("no-such-package",)).run("")


def test_child_processes_run_where_they_are_allowed() -> None:
    code = (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True).stdout)"
    )
    with Sandbox(Limits(child_processes=True), warm=0) as sandbox:
        assert sandbox.run(code).stdout == "b'42\\n'\n"


# ---- sessions


def test_a_session_keeps_its_variables_and_prints_the_last_value(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        assert session.run("x = 6\ndef f(n): return n * x").stdout == ""
        assert session.run("f(7)").stdout == "42\n"
        assert session.run("'text'").stdout == "'text'\n"
        assert session.run("None").stdout == ""
        assert session.run("x; x = 1").stdout == ""
        assert session.run("x += 1\nx", value_of="x").value == 2


def test_an_exception_in_a_block_leaves_the_session_alive(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        session.run("x = 1")
        failed = session.run("x = 2\nx / 0")
        assert (failed.status, failed.error) == (SandboxStatus.ERROR, "ZeroDivisionError")
        assert "block-2.py" in failed.stderr
        assert session.run("x").stdout == "2\n"
        assert session.run("import sys; sys.exit(1)").status is SandboxStatus.ERROR
        assert session.run("x").stdout == "2\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", SandboxStatus.TIMEOUT),
        ("import os; os._exit(0)", SandboxStatus.KILLED),
        ("import os; os.kill(os.getpid(), 9)", SandboxStatus.KILLED),
        ("import ctypes; ctypes.string_at(0)", SandboxStatus.KILLED),
    ],
)
def test_a_block_that_kills_the_session_ends_it_with_a_status(
    sandbox: Sandbox, code: str, status: SandboxStatus
) -> None:
    with sandbox.session() as session:
        assert session.run(code, timeout_s=0.5).status is status
        assert not session.alive
        assert session.run("1").status is SandboxStatus.ENDED


def test_a_block_of_long_output_keeps_its_beginning_and_its_end() -> None:
    with Sandbox(Limits(output_bytes=1000), warm=0) as sandbox, sandbox.session() as session:
        result = session.run("print('a' * 5000 + 'z' * 5000)")
        assert result.stdout.startswith("a" * 500 + "\n[9001 bytes left out]\n")
        assert result.stdout.endswith("z" * 499 + "\n")
        assert session.run("1").stdout == "1\n"


def test_each_block_reads_its_own_input(sandbox: Sandbox) -> None:
    with sandbox.session() as session:
        assert session.run("input()", "one\n").stdout == "'one'\n"
        assert session.run("input()", "two\n").stdout == "'two'\n"
        assert session.run("input()").error == "EOFError"


def test_a_session_uses_no_time_between_its_blocks(sandbox: Sandbox) -> None:
    spin = (
        "import threading\ndef spin():\n    while True: n[0] += 1\n"
        "threading.Thread(target=spin).start()"
    )
    with sandbox.session() as session:
        session.run("n = [0]")
        session.run(spin)
        first = int(session.run("n[0]").stdout)
        time.sleep(1.0)
        second = int(session.run("n[0]").stdout)
        time.sleep(1.0)
        worked = session.run("import time; time.sleep(0.5); n[0]")
    # A second of a thread that runs is millions of steps; what it gets is the blocks' own time.
    assert second - first < (int(worked.stdout) - second) / 2


def test_a_session_can_not_fake_the_next_block(sandbox: Sandbox) -> None:
    """Replies sent early carry no later nonce: the driver stamps them when it relays them."""
    with sandbox.session() as session:
        session.run(
            "import socket\nfor _ in range(3):\n"
            '    socket.socket(fileno=3).send(b\'{"error": "", "defect": "none"}\\n\')'
        )
        result = session.run("print('really ran')")
        assert result.status in (SandboxStatus.OK, SandboxStatus.KILLED)


# ---- missing layers (F39): each is really taken away, in a user namespace of the test's own

PROBE = """
import sys
from still_core.errors import SandboxError
from still_core.sandbox import Sandbox
try:
    print("ran without", *Sandbox(warm=0, allow_missing=tuple(sys.argv[1:])).check())
except SandboxError as error:
    print(error)
"""


def _without(kind: str, *allowed: str) -> str:
    """What the sandbox says where the kernel grants no more namespaces of a kind."""
    script = (
        f"echo 0 > /proc/sys/user/max_{kind}_namespaces && "
        f'exec {sys.executable} -c "$PROBE" {" ".join(allowed)}'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PROBE": PROBE, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return done.stdout + done.stderr


KINDS = {
    "user": Layer.USER,
    "mnt": Layer.MOUNT,
    "pid": Layer.PID,
    "net": Layer.NETWORK,
    "ipc": Layer.IPC,
    "uts": Layer.UTS,
    "cgroup": Layer.CGROUP,
}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not here")
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_namespace_is_refused_by_name_with_a_remedy(kind: str) -> None:
    said = _without(kind)
    assert f"sandbox layer {KINDS[kind].value} is missing" in said
    assert f"user.max_{kind}_namespaces" in said


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not here")
@pytest.mark.parametrize("kind", ["uts", "cgroup"])
def test_an_optional_layer_can_be_done_without_by_its_name(kind: str) -> None:
    # A user namespace that maps one id only has no other user to run as.
    assert "processes is missing" in _without(kind, kind)
    assert f"ran without {kind} processes" in _without(kind, kind, "processes")


def test_missing_bubblewrap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match=r"bubblewrap is missing.*apt-get install bubblewrap"):
        Sandbox().run("")


def test_a_machine_without_a_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "this_machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match=r"seccomp is missing.*allow_missing=\('seccomp',\)"):
        Sandbox().run("")


def test_without_the_filter_a_run_is_weaker_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "this_machine", lambda: "riscv64")
    code = "import socket\nprint(socket.socket(socket.AF_UNIX).fileno() > 0)"
    with Sandbox(allow_missing=("seccomp",), warm=0) as weak:
        result = weak.run(code)
    assert result.missing_layers == ("seccomp",)
    assert result.stdout == "True\n"


def test_a_layer_that_is_there_is_used_though_it_may_be_missing(sandbox: Sandbox) -> None:
    with Sandbox(allow_missing=tuple(OPTIONAL), warm=0) as willing:
        result = willing.run("import socket\nsocket.socket(socket.AF_UNIX)")
    assert (result.missing_layers, result.error) == ((), "PermissionError")
    assert sandbox.check() == ()


def test_what_can_not_be_done_without_can_not_be_named() -> None:
    with pytest.raises(ConfigError, match="network"):
        Sandbox(allow_missing=("network",))


# ---- separation (F40): what one run leaves, the next does not find

LEAKS = {
    "file": ("open('/tmp/left', 'w').write('x')", "__import__('os').path.exists('/tmp/left')"),
    "hidden_file": ("open('/tmp/.x', 'w')", "__import__('os').listdir('/tmp')"),
    "open_descriptor": (
        "import os\nfor _ in range(20): os.dup(1)",
        "__import__('os').dup(1) > 10",
    ),
    "environment": ("import os\nos.environ['L'] = '1'", "__import__('os').environ.get('L')"),
    "libc_environment": (
        "import os\nos.putenv('L', '1')",
        "__import__('ctypes').CDLL(None).getenv(b'L')",
    ),
    "working_folder": (
        "import os\nos.mkdir('d')\nos.chdir('d')",
        "__import__('os').getcwd() != '/tmp'",
    ),
    "umask": ("import os\nos.umask(0)", "__import__('os').umask(0) == 0"),
    "module_attribute": ("import json\njson.L = 1", "hasattr(__import__('json'), 'L')"),
    "builtin": ("import builtins\nbuiltins.L = 1", "'L' in vars(__import__('builtins'))"),
    "patched_builtin": ("import builtins\nbuiltins.abs = lambda x: 9", "abs(1) == 9"),
    "global": ("L = 1", "'L' in globals()"),
    "imported_module": (
        "import decimal\nimport sys\nsys.modules['L'] = decimal",
        "'L' in __import__('sys').modules",
    ),
    "module_file": (
        "open('/tmp/leak.py', 'w').write('L = 1')",
        "__import__('importlib.util').util.find_spec('leak')",
    ),
    "bytecode": (
        "import os\nos.makedirs('/tmp/__pycache__')",
        "__import__('os').path.exists('/tmp/__pycache__')",
    ),
    "import_path": ("import sys\nsys.path.append('/L')", "'/L' in __import__('sys').path"),
    "signal_handler": (
        "import signal\nsignal.signal(10, signal.SIG_IGN)",
        "__import__('signal').getsignal(10) == 1",
    ),
    "signal_mask": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [12])",
        "__import__('signal').pthread_sigmask(0, []) != set()",
    ),
    "alarm": ("import signal\nsignal.alarm(1000)", "__import__('signal').alarm(0)"),
    "limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
        "__import__('resource').getrlimit(7)[0] == 20",
    ),
    "recursion_limit": (
        "import sys\nsys.setrecursionlimit(5000)",
        "__import__('sys').getrecursionlimit() == 5000",
    ),
    "decimal_context": (
        "import decimal\ndecimal.getcontext().prec = 3",
        "__import__('decimal').getcontext().prec == 3",
    ),
    "locale": (
        "import time, os\nos.environ['TZ'] = 'XYZ-9'\ntime.tzset()",
        "__import__('time').timezone != 0",
    ),
    "exit_handler": (
        "import atexit\natexit.register(print, 'L')",
        "__import__('atexit')._ncallbacks()",
    ),
    "object_in_memory": (
        "class Leak_: pass\nkept = [Leak_() for _ in range(1000)]",
        "[o for o in __import__('gc').get_objects() if type(o).__name__ == 'Leak_']",
    ),
    "trace": ("import sys\nsys.settrace(lambda *a: None)", "__import__('sys').gettrace()"),
}


@pytest.mark.parametrize("concurrent", [False, True], ids=["after", "beside"])
@pytest.mark.parametrize("kind", LEAKS)
def test_a_run_finds_nothing_of_another(sandbox: Sandbox, kind: str, concurrent: bool) -> None:
    leave, look = LEAKS[kind]
    with sandbox.session() as first:
        # The look itself works: in the same session it finds what was left.
        assert first.run(leave).status is SandboxStatus.OK
        if kind not in ("exit_handler", "alarm", "libc_environment"):
            assert first.run(f"bool({look})").stdout == "True\n"
        if not concurrent:
            first.close()
        assert sandbox.run(f"print(bool({look}))").stdout == "False\n"


def test_runs_have_seeds_of_their_own(sandbox: Sandbox) -> None:
    code = (
        "import os, random, tempfile, uuid\n"
        "print(random.random(), os.urandom(4).hex(), uuid.uuid4(), tempfile.mktemp())"
    )
    seen = [word for _ in range(8) for word in sandbox.run(code).stdout.split()]
    assert len(set(seen)) == len(seen) == 32


def test_preloaded_generators_are_seeded_anew() -> None:
    code = "import random, numpy\nprint(random.random(), numpy.random.rand())"
    with Sandbox(
        Limits(timeout_s=20), packages=("numpy",), preload=("numpy", "numpy.random"), warm=0
    ) as tools:
        seen = [word for _ in range(4) for word in tools.run(code).stdout.split()]
    assert len(set(seen)) == len(seen) == 8


def test_sets_have_one_order_in_every_run_and_sandbox() -> None:
    code = "print({str(i) for i in range(50)})"
    with Sandbox(warm=0) as one, Sandbox(warm=0) as other:
        assert one.run(code).stdout == one.run(code).stdout == other.run(code).stdout


# ---- load (F41) and lifetime


def _load(sandbox: Sandbox, threads: int, runs: int) -> list[float]:
    """Run in many threads, each result checked to be the run's own; wall seconds of each."""

    def work(thread: int) -> list[float]:
        seconds = []
        for index in range(runs):
            token = f"{thread}-{index}"
            started = time.monotonic()
            result = sandbox.run(
                f"import sys\nprint({token!r}, input())\nsys.stderr.write({token!r})\n"
                f"value = {token!r}",
                token,
                value_of="value",
            )
            seconds.append(time.monotonic() - started)
            assert result.stdout == f"{token} {token}\n", result
            assert (result.stderr, result.value) == (token, token)
        return seconds

    with ThreadPoolExecutor(threads) as pool:
        return [each for part in pool.map(work, range(threads)) for each in part]


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _check_load(runs: int) -> None:
    before = _descriptors()
    with Sandbox(Limits(timeout_s=30)) as sandbox:
        sandbox.check()
        seconds = sorted(_load(sandbox, 16, runs))
    assert len(seconds) == 16 * runs
    assert _descriptors() == before
    print(f"p50 {seconds[len(seconds) // 2]:.3f} s, p99 {seconds[len(seconds) * 99 // 100]:.3f} s")


def test_sixteen_threads_get_their_own_results_and_leave_nothing() -> None:
    _check_load(20)


@pytest.mark.slow
def test_sixteen_thousand_runs_get_their_own_results_and_leave_nothing() -> None:
    _check_load(1000)


def _run_in_child(pickled: bytes, answers: multiprocessing.Queue[str]) -> None:
    answers.put(pickle.loads(pickled).run("print('from a copy')").stdout)


def test_a_pickled_copy_works_in_another_process(sandbox: Sandbox) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_run_in_child, args=(pickle.dumps(sandbox), answers))
    process.start()
    assert answers.get(timeout=60) == "from a copy\n"
    process.join()


def test_a_forked_copy_works_beside_its_parent(sandbox: Sandbox) -> None:
    sandbox.run("")
    pid = os.fork()
    if pid == 0:
        worked = sandbox.run("print('child')").stdout == "child\n"
        sandbox.close()
        os._exit(0 if worked else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox.run("print('parent')").stdout == "parent\n"


def test_a_closed_sandbox_starts_anew(sandbox: Sandbox) -> None:
    sandbox.close()
    assert sandbox.run("print(1)").stdout == "1\n"


@pytest.mark.slow
def test_a_ray_actor_has_a_sandbox_of_its_own(
    sandbox: Sandbox,
) -> None:
    import ray

    class Tool:
        def __init__(self, given: Sandbox) -> None:
            self.given = given

        def run(self, code: str) -> str:
            return self.given.run(code).stdout

    # Socket paths have an upper length: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        ray.shutdown()  # an earlier test's
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        try:
            actors = [ray.remote(Tool).options(num_cpus=1).remote(sandbox) for _ in range(2)]
            answers = [actor.run.remote(f"print({n})") for n, actor in enumerate(actors)]
            assert ray.get(answers, timeout=120) == ["0\n", "1\n"]
        finally:
            ray.shutdown()


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("print('hello')\nraise SystemExit(3)")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from deployments.cli import main; main()",
            *("sandbox", "run", str(tmp_path / "program.py"), "--timeout", "5", "--memory", "128"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["status"], row["stdout"], row["exit_code"]) == ("error", "hello\n", 3)


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def _below(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_below(child))]


def test_a_killed_outer_sandbox_is_started_again() -> None:
    with Sandbox() as sandbox:
        session = sandbox.session()
        (guard,) = [pid for pid in _children(os.getpid()) if pid == sandbox._backend._guard.pid]
        os.kill(guard, signal.SIGKILL)
        time.sleep(0.5)
        assert session.run("1").status is SandboxStatus.KILLED
        assert sandbox.run("print(2)").stdout == "2\n"


def test_a_run_whose_outer_sandbox_is_killed_is_run_again() -> None:
    with Sandbox(Limits(timeout_s=10)) as sandbox, ThreadPoolExecutor(1) as pool:
        sandbox.check()
        running = pool.submit(sandbox.run, "import time\ntime.sleep(1)\nprint('whole')")
        time.sleep(0.3)
        os.kill(sandbox._backend._guard.pid, signal.SIGKILL)
        assert running.result().stdout == "whole\n"


HOST = """
import sys, threading
from still_core.sandbox import Limits, Sandbox
sandbox = Sandbox(Limits(timeout_s=1000))
threading.Thread(target=sandbox.run, args=("import time; time.sleep(1000)",)).start()
threading.Thread(target=sandbox.run, args=("while True: pass",)).start()
sandbox.run("")
print("ready", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_host(number: signal.Signals) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert host.stdout is not None
    with host, host.stdout:
        assert host.stdout.readline() == b"ready\n"
        below = _below(host.pid)
        assert len(below) >= 6
        host.send_signal(number)
        host.wait()
    until = time.monotonic() + 5
    while alive := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="counts processes by their user id")
def test_nothing_outlives_a_host_killed_while_it_starts() -> None:
    code = "import still_core.sandbox as s; print(1, flush=True); s.Sandbox().run('')"
    users = []
    for step in range(12):
        host = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert host.stdout is not None
        with host, host.stdout:
            host.stdout.readline()
            time.sleep(0.03 + step * 0.008)
            host.kill()
        users.append(bubblewrap.FIRST_USER + host.pid % bubblewrap.NUM_USERS)
    until = time.monotonic() + 10
    while alive := _owners_of_processes() & set(users):
        assert time.monotonic() < until, alive
        time.sleep(0.1)


def _owners_of_processes() -> set[int]:
    owners = set()
    for entry in Path("/proc").iterdir():
        # Others on this machine come and go.
        with contextlib.suppress(OSError):
            owners.add(entry.stat().st_uid)
    return owners


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_works_for_a_user_who_is_not_root() -> None:
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no interpreter that every user can reach")
    code = (
        "import os, sys\nfrom still_core.sandbox import Limits, Sandbox\n"
        "r = Sandbox(Limits(child_processes=True, threads=8), warm=0).run('''"
        "import os, time\\nn = 0\\nfor _ in range(50):\\n    try:\\n"
        "        if os.fork() == 0: time.sleep(1000)\\n        n += 1\\n    except OSError: pass\\n"
        "print(n, os.getuid())''')\nprint(os.getuid(), r.stdout, r.missing_layers)"
    )
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        user=61_000,
        group=61_000,
        extra_groups=[],
        check=False,
    )
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("the checkout can not be read by every user")
    assert done.stdout == "61000 7 1000\n ()\n", done.stderr
