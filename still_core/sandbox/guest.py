"""What runs inside the sandbox: zygote, driver and executor. Standard library only; one file.

    host -> zygote (pid 2 of the outer sandbox) --fork--> stub --unshare, fork--> driver (pid 1)
    driver --fork--> executor (pid 2): limits, filter, then the model's code

The zygote is trusted and never runs foreign code. For each run it forks a stub, which makes fresh
namespaces around the driver. The driver alone holds the channel to the host and the nonces; the
executor is forked off before any nonce arrives, so nothing of it is in the executor's memory. Being
pid 1, the driver can not be signalled by the executor, and its end ends every process of the run.

All channels are sequenced-packet sockets: a message is one datagram, descriptors travel with it.
The host never trusts what comes from the executor further than as bounded, strictly parsed JSON.
"""

import ast
import atexit
import base64
import builtins
import ctypes
import errno
import gc
import importlib
import io
import json
import linecache
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TextIO

UID = 1000
SCRATCH = "/tmp"
MAX_DATAGRAM = 180_000
"""Below net.core.wmem_default (212,992 bytes) less the kernel's own share."""
ENVIRONMENT = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "LANG": "C.UTF-8", "PATH": "/python/bin"}
SOURCE_NAME = "main.py"

CLONE = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_GET_SECCOMP = 24, 38, 22, 21
PR_SET_DUMPABLE, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 4, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
PAGE = mmap.PAGESIZE

Config = dict[str, Any]
"""The host's settings: bubblewrap.BubblewrapBackend writes them."""

libc = ctypes.CDLL(None, use_errno=True)
encode = json.JSONEncoder(allow_nan=False).encode


class Refused(Exception):
    """A layer of the isolation can not be had: (layer, reason)."""


def call(layer: str, function: Callable[..., int], *arguments: object) -> None:
    """A libc call that must return 0 or more."""
    if function(*arguments) < 0:
        raise Refused(layer, os.strerror(ctypes.get_errno()))


def attempt(layer: str, config: Config, missing: list[str], action: Callable[[], object]) -> None:
    """Run `action`; a layer that the caller explicitly does without is noted, others refuse."""
    try:
        action()
    except (Refused, OSError, ValueError) as error:
        reason = error.args[-1] if isinstance(error, Refused) else str(error)
        if layer not in config["allow_missing"]:
            raise Refused(layer, reason) from None
        if layer not in missing:
            missing.append(layer)


# ---- zygote


def zygote(control: socket.socket, proc: int) -> None:
    """Answer the host's requests for a new run until the host hangs up.

    Args:
        control: the channel to the host; each request carries three descriptors.
        proc: directory descriptor of a procfs, to write the maps of user namespaces.
    """
    config = json.loads(control.recv(MAX_DATAGRAM))
    sys.path.extend(config["paths"])
    for name in config["preload"]:
        importlib.import_module(name)
    config["baseline"] = address_space(proc)
    gc.collect()
    gc.freeze()
    control.send(b'{"ready": true}')
    # Stubs are reaped at once: a dead one still counts in its run's user namespace.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 64, 3)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            never_return(stub, config, control, proc, *descriptors)
        for each in descriptors:
            os.close(each)


def never_return(function: Callable[..., None], *arguments: object) -> NoReturn:
    """Run a forked process's part; whatever happens, it does not go on with its parent's code."""
    try:
        function(*arguments)
    finally:
        os._exit(70)


def address_space(proc: int) -> int:
    """Bytes of address space of this process."""
    descriptor = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    pages = int(os.read(descriptor, 64).split()[0])
    os.close(descriptor)
    return pages * PAGE


# ---- stub


def stub(
    config: Config, control: socket.socket, proc: int, channel: int, out: int, err: int
) -> None:
    """Make the namespaces, start the driver in them, tell the host its pidfd, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    host = socket.socket(fileno=channel)
    missing: list[str] = []
    try:
        attempt("user", config, missing, lambda: enter_user_namespace(proc))
        for name in ("mount", "pid", "network", "ipc", "uts", "cgroup"):
            attempt(name, config, missing, partial(call, name, libc.unshare, CLONE[name]))
        os.close(proc)
        pid = os.fork()
        if pid == 0:
            never_return(driver, config, host, out, err, missing)
        socket.send_fds(host, [b'{"event": "pid"}'], [os.pidfd_open(pid)])
    except Refused as refusal:
        tell(host, event="refused", layer=refusal.args[0], reason=refusal.args[1])
    except OSError as error:
        tell(host, event="refused", layer="pid", reason=str(error))


def enter_user_namespace(proc: int) -> None:
    """A user namespace of this run's own: capabilities over nothing but it, and its own counts."""
    call("user", libc.unshare, CLONE["user"])
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{UID} {UID} 1"),
        ("gid_map", f"{UID} {UID} 1"),
    ):
        descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def tell(channel: socket.socket, payload: bytes = b"", **fields: object) -> None:
    """Send one event, and its payload as a datagram of its own."""
    fields["bytes"] = len(payload)
    try:
        channel.send(json.dumps(fields).encode())
        if payload:
            channel.send(payload)
    except OSError:
        os._exit(1)


# ---- driver


def driver(config: Config, host: socket.socket, out: int, err: int, missing: list[str]) -> None:
    """Pid 1 of the run: finish the isolation, start the executor, relay and watch."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open("/dev/null", os.O_RDWR)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        attempt("uts", config, missing, lambda: socket.sethostname("sandbox"))
        mount_scratch(config)
        drop_privileges()
        attempt("processes", config, missing, probe_process_limit)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            host.close()
            near.close()
            never_return(executor, config, far)
        far.close()
        attempt("seccomp", config, [], lambda: install(config["driver_filter"]))
        verdict = json.loads(near.recv(1024) or b'["rlimits", "the executor died"]')
        if isinstance(verdict, list):
            raise Refused(*verdict)
        missing += verdict["missing"]
    except Refused as refusal:
        tell(host, event="refused", layer=refusal.args[0], reason=refusal.args[1])
        os._exit(1)
    except OSError as error:
        tell(host, event="refused", layer="mount", reason=str(error))
        os._exit(1)
    tell(host, event="ready", missing=missing)
    watch(host, near, pid)


def mount_scratch(config: Config) -> None:
    """A private /tmp of bounded size and number of files: the only place that can be written."""
    call("mount", libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    options = f"size={config['disk_mb']}m,nr_inodes={config['num_files']},mode=700"
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    call("tmpfs", libc.mount, b"tmpfs", SCRATCH.encode(), b"tmpfs", flags, options.encode())
    os.chdir(SCRATCH)


def drop_privileges() -> None:
    """Give up every capability for good: bounding, ambient, permitted, effective, inheritable."""
    for number in range(64):
        if libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            if ctypes.get_errno() != errno.EINVAL:
                raise Refused("capabilities", os.strerror(ctypes.get_errno()))
            break
    call("capabilities", libc.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    call("capabilities", libc.capset, header, bytes(24))
    current = ctypes.create_string_buffer(24)
    call("capabilities", libc.capget, header, current)
    if current.raw != bytes(24):
        raise Refused("capabilities", "some are left")
    call("no_new_privs", libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("no_new_privs", libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)


def probe_process_limit() -> None:
    """Whether the limit on processes binds this user; it does not bind the host's root."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, before[1]))
    try:
        pid = os.fork()
    except BlockingIOError:
        return
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    raise Refused("processes", "RLIMIT_NPROC does not bind this user")


def install(program: str) -> None:
    """Put a system call filter on this process and all its children."""
    code = base64.b64decode(program)
    if not code:
        raise Refused("seccomp", "no filter for this machine")
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    call("seccomp", libc.prctl, PR_SET_SECCOMP, 2, header, 0, 0)


def watch(host: socket.socket, near: socket.socket, pid: int) -> NoReturn:
    """Relay jobs to the executor and its replies to the host, until either ends."""
    nonce, session = "", False
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    for each in (host.fileno(), near.fileno(), pidfd):
        poller.register(each, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll(200)}
        reap(pid)
        if host.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(host, 4096, 2)
            if not data:
                os._exit(0)
            job = json.loads(data)
            nonce = job.pop("nonce")
            session = not job["program"]
            socket.send_fds(near, [json.dumps(job).encode()], descriptors)
            os.kill(-1, signal.SIGCONT)
            for each in descriptors:
                os.close(each)
        if near.fileno() in ready:
            if not relay(host, near, nonce):
                poller.unregister(near.fileno())
            elif session:
                # Between its blocks a session gets no processor time: nothing would bound it.
                os.kill(-1, signal.SIGSTOP)
        if pidfd in ready:
            while relay(host, near, nonce):
                pass
            _, status, usage = os.wait4(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            tell(
                host,
                event="end",
                nonce=nonce,
                exit=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                peak_kb=usage.ru_maxrss,
                baseline_kb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            )
            os._exit(0)


def relay(host: socket.socket, near: socket.socket, nonce: str) -> bool:
    """Pass one reply on; False where there is none."""
    try:
        payload = near.recv(MAX_DATAGRAM, socket.MSG_DONTWAIT)
    except (BlockingIOError, ConnectionResetError):
        return False
    if not payload:
        return False
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tell(host, payload, event="reply", nonce=nonce, baseline_kb=usage)
    return True


def reap(executor_pid: int) -> None:
    """Collect orphans, which count against the limit; the executor is left for later."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid == executor_pid:
                return
            os.waitpid(info.si_pid, os.WNOHANG)
        except ChildProcessError:
            return


# ---- executor


def executor(config: Config, far: socket.socket) -> NoReturn:
    """Lower the limits, take the filter, then run what comes; never returns."""
    missing: list[str] = []
    channel = socket.socket(fileno=os.dup2(far.detach(), 3, inheritable=False))
    os.closerange(4, 65_536)
    try:
        attempt("rlimits", config, missing, lambda: lower_limits(config))
        attempt("seccomp", config, missing, lambda: install(config["executor_filter"]))
    except Refused as refusal:
        channel.send(json.dumps(refusal.args).encode())
        os._exit(1)
    channel.send(json.dumps({"missing": missing}).encode())
    value_bytes = config["value_bytes"]
    namespace = fresh_interpreter(config)
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
        if not data:
            os._exit(0)
        job = json.loads(data)
        source = take_files(*descriptors)
        if job["program"]:
            status, error = run_program(source, namespace)
        else:
            status, error = run_block(source, namespace, job["number"])
        flush()
        channel.send(encode_reply(error, namespace, job["value"], value_bytes))
        if job["program"]:
            leave(status)


def take_files(code: int, stdin: int) -> bytes:
    """Put the standard input in its place.

    Returns:
        The source.
    """
    source = os.pread(code, os.fstat(code).st_size, 0)
    os.dup2(stdin, 0)
    os.close(code)
    os.close(stdin)
    set_stream("stdin", open_text(0, "r"))
    return source


def open_text(number: int, mode: str) -> TextIO:
    """A text stream on one of the three standard descriptors."""
    errors = "surrogateescape" if mode == "r" else "backslashreplace"
    buffering = -1 if mode == "r" else 1
    stream = open(  # noqa: SIM115 - stays open as long as the process
        number, mode, buffering, encoding="utf-8", errors=errors, closefd=False
    )
    assert isinstance(stream, io.TextIOWrapper)
    return stream


def set_stream(name: str, stream: TextIO) -> None:
    """Make it sys.NAME, and what is left when the code replaces that."""
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def lower_limits(config: Config) -> None:
    """Hard limits, which nothing in here can raise again."""
    bounds = {
        resource.RLIMIT_AS: config["baseline"] + config["memory_mb"] * 2**20,
        # One for the driver, which is of the same user namespace.
        resource.RLIMIT_NPROC: config["threads"] + 1,
        resource.RLIMIT_FSIZE: config["disk_mb"] * 2**20,
        resource.RLIMIT_NOFILE: config["open_files"],
        # 1 keeps cores from programs too that the host's core_pattern may name; 0 does not.
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 256,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_CPU: config["cpu_s"],
    }
    for kind, bound in bounds.items():
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def fresh_interpreter(config: Config) -> dict[str, Any]:
    """Forget what the zygote knew, take new seeds, and give a new `__main__`.

    Returns:
        The namespace that model-written code runs in.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.umask(0o077)
    os.environ.clear()
    os.environ.update(ENVIRONMENT, **config["environment"])
    sys.argv, sys.orig_argv = [SOURCE_NAME], ["python"]
    sys.path.insert(0, SCRATCH)
    # Without `site` there are none, and programs end by them.
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    set_stream("stdout", open_text(1, "w"))
    set_stream("stderr", open_text(2, "w"))
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    vars(main)["__builtins__"] = builtins
    config.clear()
    return vars(main)


def run_program(source: bytes, namespace: dict[str, Any]) -> tuple[int, str]:
    """Run a whole program as `python main.py` would.

    Returns:
        Its exit status, and the name of its uncaught exception or "".
    """
    try:
        remember(SOURCE_NAME, source)
        exec(compile(source, SOURCE_NAME, "exec", dont_inherit=True), namespace)
    except SystemExit as leaving:
        return exit_status(leaving.code), ""
    except BaseException as error:
        show(error)
        return 1, type(error).__name__
    return 0, ""


def run_block(source: bytes, namespace: dict[str, Any], number: int) -> tuple[int, str]:
    """Run one block of a session; like a notebook, print the value of a last expression.

    Returns:
        0 or 1, and the name of the uncaught exception or "".
    """
    name = f"block-{number}.py"
    try:
        remember(name, source)
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), namespace)
        if last is not None:
            shown = compile(ast.Interactive([last]), name, "single", dont_inherit=True)
            exec(shown, namespace)
    except SystemExit as leaving:
        status = exit_status(leaving.code)
        return status, "SystemExit" if status else ""
    except BaseException as error:
        show(error)
        return 1, type(error).__name__
    return 0, ""


def exit_status(code: object) -> int:
    """What sys.exit(code) leaves behind."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def remember(name: str, source: bytes) -> None:
    """Let tracebacks show the lines of code that is in no file."""
    lines = source.decode("utf-8", "replace").splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)


def show(error: BaseException) -> None:
    """Print the traceback from the model's own frames on; its text may itself fail to print."""
    frames = error.__traceback__
    try:
        traceback.print_exception(type(error), error, frames.tb_next if frames else None)
    except BaseException:
        os.write(2, type(error).__name__.encode() + b": its text can not be printed\n")


def flush() -> None:
    """Write out what is buffered, whatever the code put in the place of the streams."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except BaseException:
            # Closed or replaced by the code that ran: its own loss.
            continue


def encode_reply(error: str, namespace: dict[str, Any], name: str | None, limit: int) -> bytes:
    """One datagram: a line of JSON about the run, then the JSON of the value asked for."""
    value, defect = b"", "none"
    if name is not None and name in namespace:
        try:
            value, defect = encode(namespace[name]).encode(), ""
        except BaseException:
            defect = "not JSON"
    if len(value) > limit:
        value, defect = b"", "too long"
    return encode({"error": error[:100], "defect": defect}).encode() + b"\n" + value


def leave(status: int) -> NoReturn:
    """End as an interpreter does: wait for threads, run exit handlers, flush."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what Py_Finalize calls
        atexit._run_exitfuncs()
    except BaseException as error:
        show(error)
        status = 1
    flush()
    os._exit(status)


if __name__ == "__main__":
    os.close(int(sys.argv[3]))
    zygote(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
