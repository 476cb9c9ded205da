"""The filter, run by an interpreter of classic BPF that knows nothing of how it was built."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from still_core.errors import SandboxError
from still_core.sandbox.seccomp import MACHINES, build_filter

ALLOW, KILL = "allow", "kill"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def decide(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = 0) -> object:
    """What the kernel would do: ALLOW, KILL or the errno."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            if value == 0x7FFF0000:
                return ALLOW
            return KILL if value == 0x80000000 else value & 0xFFFF
        else:
            taken = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
            }
            position += if_true if taken[code] else if_false


def on(machine: str, name: str, *arguments: int, **options: bool) -> object:
    """The decision on a call by name."""
    options.setdefault("child_processes", False)
    number = DENIED_NUMBERS.get((machine, name)) or MACHINES[machine].numbers[name]
    return decide(build_filter(machine, **options), number, arguments, AUDIT[machine])


# From the manual pages' tables, for calls that the filter's own table does not hold.
DENIED_NUMBERS = {
    ("x86_64", name): number
    for name, number in {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
        "bpf": 321, "keyctl": 250, "add_key": 248, "request_key": 249, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "perf_event_open": 298,
        "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
        "delete_module": 176, "reboot": 169, "swapon": 167, "swapoff": 168, "userfaultfd": 323,
        "open_by_handle_at": 304, "socket": 41, "memfd_create": 319, "memfd_secret": 447,
        "personality": 135, "quotactl": 179, "acct": 163, "settimeofday": 164,
        "clock_settime": 227, "adjtimex": 159, "sethostname": 170, "shmget": 29, "shmat": 30,
        "semget": 64, "msgget": 68, "mq_open": 240, "setuid": 105, "setgid": 106,
        "setgroups": 116, "capset": 126, "seccomp": 317, "pidfd_getfd": 438, "fsopen": 430,
        "fsmount": 432, "move_mount": 429, "open_tree": 428, "mount_setattr": 442,
        "fanotify_init": 300, "inotify_init1": 294, "vmsplice": 278, "splice": 275, "tee": 276,
        "kcmp": 312, "ioperm": 173, "iopl": 172, "modify_ldt": 154, "connect": 42, "bind": 49,
        "listen": 50, "accept4": 288, "mknod": 133, "syslog": 103, "sync": 162, "setrlimit_": 160,
        "sched_setaffinity": 203, "mlock": 149, "migrate_pages": 256, "set_mempolicy": 238,
        "lookup_dcookie": 212, "nfsservctl": 180, "uselib": 134, "name_to_handle_at": 303,
        "landlock_create_ruleset": 444, "process_madvise": 440, "setxattr": 188,
    }.items()
    if name != "setrlimit_"
}  # fmt: skip


@pytest.mark.parametrize("name", [name for _, name in DENIED_NUMBERS])
def test_dangerous_calls_are_refused(name: str) -> None:
    assert on("x86_64", name) == errno.EPERM
    assert on("x86_64", name, child_processes=True) == errno.EPERM
    assert on("x86_64", name, child_processes=True, driver=True) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["read", "write", "mmap", "futex", "openat", "exit_group", "rseq"])
def test_what_python_needs_is_allowed(machine: str, name: str) -> None:
    assert on(machine, name) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_outside_of_the_table_is_refused(machine: str) -> None:
    program = build_filter(machine, child_processes=True, driver=True)
    known = set(MACHINES[machine].numbers.values())
    for number in set(range(600)) - known:
        decision = decide(program, number, (), AUDIT[machine])
        assert decision == (errno.ENOSYS if number > 450 else errno.EPERM), number


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_start_and_processes_only_where_allowed(machine: str) -> None:
    thread, process = 0x003D0F00, 0x01200011
    assert on(machine, "clone", thread) == ALLOW
    assert on(machine, "clone", process) == errno.EPERM
    assert on(machine, "clone", process, child_processes=True) == ALLOW
    assert on(machine, "execve") == errno.EPERM
    assert on(machine, "execve", child_processes=True) == ALLOW
    assert on(machine, "clone3", child_processes=True) == errno.ENOSYS


@pytest.mark.parametrize("flag", [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)])
@pytest.mark.parametrize("children", [False, True])
def test_no_clone_makes_a_namespace(flag: int, children: bool) -> None:
    for base in (0, 0x11, 0x003D0F00):
        assert on("x86_64", "clone", base | flag, child_processes=children) == errno.EPERM
        # The kernel reads the low 32 bits alone; so must the filter.
        high = base | flag | 1 << 40
        assert on("x86_64", "clone", high, child_processes=children) == errno.EPERM


@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("prctl", (15,), ALLOW),
        ("prctl", (22, 2), errno.EPERM),
        ("prctl", (4, 1), errno.EPERM),
        ("prctl", (8, 1), errno.EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 0x541C), errno.EPERM),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1, 7), errno.EPERM),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (2, 1), errno.EPERM),
        ("pidfd_open", (1,), errno.EPERM),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(
    machine: str, name: str, arguments: tuple[int, ...], decision: object
) -> None:
    assert on(machine, name, *arguments) == decision


def test_other_numberings_are_killed() -> None:
    program = build_filter("x86_64", child_processes=True)
    assert decide(program, 39, (), AUDIT["x86_64"]) == ALLOW
    assert decide(program, 39, (), 0x40000003) == KILL  # i386
    assert decide(program, 39 | 0x40000000, (), AUDIT["x86_64"]) == KILL  # x32
    assert decide(build_filter("aarch64", child_processes=True), 63, (), 0x40000028) == KILL  # arm


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_well_formed(machine: str) -> None:
    program = build_filter(machine, child_processes=False)
    count = len(program) // 8
    assert len(program) % 8 == 0
    assert count < 4096
    for position, (code, if_true, if_false, _) in enumerate(struct.iter_unpack("<HBBI", program)):
        if code in (0x15, 0x25, 0x35):
            assert position + 1 + max(if_true, if_false) < count


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_agree_with_the_kernel_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip("the kernel's headers are not installed")
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", header.read_text())
    }
    # The generic header has other names for the calls with 64-bit offsets.
    found.setdefault("newfstatat", found.get("fstatat", -1))
    ours = MACHINES[machine].numbers
    assert {name: found.get(name) for name in ours} == ours


def test_an_unknown_machine_is_refused_by_the_name_of_the_layer() -> None:
    with pytest.raises(SandboxError, match="seccomp is missing"):
        build_filter("riscv64", child_processes=False)
