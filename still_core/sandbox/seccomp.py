"""The system calls that model-written Python may make, as a classic BPF program.

allowed names -> sorted numbers of this machine -> BPF instructions -> prctl(PR_SET_SECCOMP)

An allow-list: what is not named here does not work, so a system call that a later kernel adds is
refused too. Refused calls return EPERM, and clone3 and unknown numbers ENOSYS, for which glibc
has other ways; calls by another architecture's numbers kill the process. Among the absent are
ptrace, process_vm_*, pidfd_getfd, mount and its family, unshare, setns, chroot, bpf, keyctl,
io_uring, perf_event_open, userfaultfd, memfd_create, System V shared memory, every way to make a
socket that reaches further than its own process tree, and sched_setaffinity.

Program format: linux/Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import platform
import struct
from itertools import pairwise
from typing import NamedTuple

from still_core.errors import SandboxError, explain
from still_core.sandbox.limits import Layer, remedy

# Both tables are from the kernel's unistd.h; numbers never change once given.
X86_64 = """
read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11
brk=12 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18 readv=19
writev=20 access=21 pipe=22 select=23 sched_yield=24 mremap=25 msync=26 madvise=28 dup=32
dup2=33 pause=34 nanosleep=35 getitimer=36 alarm=37 setitimer=38 getpid=39 sendfile=40 sendto=44
recvfrom=45 sendmsg=46 recvmsg=47 shutdown=48 getsockname=51 getpeername=52 getsockopt=55
exit=60 wait4=61 kill=62 uname=63 fcntl=72 flock=73 fsync=74 fdatasync=75 truncate=76
ftruncate=77 getdents=78 getcwd=79 chdir=80 fchdir=81 rename=82 mkdir=83 rmdir=84 creat=85
link=86 unlink=87 symlink=88 readlink=89 chmod=90 fchmod=91 umask=95 gettimeofday=96
getrlimit=97 getrusage=98 sysinfo=99 times=100 getuid=102 getgid=104 geteuid=107 getegid=108
setpgid=109 getppid=110 getpgrp=111 setsid=112 getgroups=115 getresuid=118 getresgid=120
getpgid=121 getsid=124 rt_sigpending=127 rt_sigtimedwait=128 rt_sigsuspend=130 sigaltstack=131
utime=132 statfs=137 fstatfs=138 getpriority=140 sched_getparam=143 sched_getscheduler=145
sched_get_priority_max=146 sched_get_priority_min=147 sched_rr_get_interval=148 arch_prctl=158
setrlimit=160 gettid=186 tkill=200 time=201 futex=202 sched_getaffinity=204 getdents64=217
set_tid_address=218 restart_syscall=219 fadvise64=221 clock_gettime=228 clock_getres=229
clock_nanosleep=230 exit_group=231 epoll_wait=232 epoll_ctl=233 tgkill=234 utimes=235 waitid=247
openat=257 mkdirat=258 futimesat=261 newfstatat=262 unlinkat=263 renameat=264 linkat=265
symlinkat=266 readlinkat=267 fchmodat=268 faccessat=269 pselect6=270 ppoll=271
set_robust_list=273 utimensat=280 epoll_pwait=281 eventfd=284 eventfd2=290 epoll_create=213
epoll_create1=291 fallocate=285 dup3=292 pipe2=293 preadv=295 pwritev=296 getcpu=309
renameat2=316 getrandom=318 preadv2=327 pwritev2=328 rseq=334 statx=332 close_range=436
faccessat2=439 epoll_pwait2=441 clone=56 fork=57 vfork=58 execve=59 prctl=157 ioctl=16
prlimit64=302 socketpair=53 pidfd_open=434 pidfd_send_signal=424 clone3=435
"""
AARCH64 = """
read=63 write=64 close=57 fstat=80 lseek=62 mmap=222 mprotect=226 munmap=215 brk=214
rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139 pread64=67 pwrite64=68 readv=65 writev=66
sched_yield=124 mremap=216 msync=227 madvise=233 dup=23 nanosleep=101 getitimer=102
setitimer=103 getpid=172 sendfile=71 sendto=206 recvfrom=207 sendmsg=211 recvmsg=212
shutdown=210 getsockname=204 getpeername=205 getsockopt=209 exit=93 wait4=260 kill=129 uname=160
fcntl=25 flock=32 fsync=82 fdatasync=83 truncate=45 ftruncate=46 getcwd=17 chdir=49 fchdir=50
fchmod=52 umask=166 gettimeofday=169 getrlimit=163 getrusage=165 sysinfo=179 times=153
getuid=174 getgid=176 geteuid=175 getegid=177 setpgid=154 getppid=173 setsid=157 getgroups=158
getresuid=148 getresgid=150 getpgid=155 getsid=156 rt_sigpending=136 rt_sigtimedwait=137
rt_sigsuspend=133 sigaltstack=132 statfs=43 fstatfs=44 getpriority=141 sched_getparam=121
sched_getscheduler=120 sched_get_priority_max=125 sched_get_priority_min=126
sched_rr_get_interval=127 setrlimit=164 gettid=178 tkill=130 futex=98 sched_getaffinity=123
getdents64=61 set_tid_address=96 restart_syscall=128 fadvise64=223 clock_gettime=113
clock_getres=114 clock_nanosleep=115 exit_group=94 epoll_ctl=21 tgkill=131 waitid=95 openat=56
mkdirat=34 newfstatat=79 unlinkat=35 renameat=38 linkat=37 symlinkat=36 readlinkat=78
fchmodat=53 faccessat=48 pselect6=72 ppoll=73 set_robust_list=99 utimensat=88 epoll_pwait=22
eventfd2=19 epoll_create1=20 fallocate=47 dup3=24 pipe2=59 preadv=69 pwritev=70 getcpu=168
renameat2=276 getrandom=278 preadv2=286 pwritev2=287 rseq=293 statx=291 close_range=436
faccessat2=439 epoll_pwait2=441 clone=220 execve=221 prctl=167 ioctl=29 prlimit64=261
socketpair=199 pidfd_open=434 pidfd_send_signal=424 clone3=435
"""

_PROCESS_CALLS = ("clone", "fork", "vfork", "execve")
_CONDITIONAL = ("clone", "prctl", "ioctl", "prlimit64", "socketpair")
_DRIVER_ONLY = ("pidfd_open", "pidfd_send_signal")

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _GREATER, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16
"""Offsets in struct seccomp_data; argument i stands at 16 + 8 i, its low word first."""
_X32_BIT = 0x40000000
_LAST_KNOWN = 450
"""Numbers above are of kernels later than these tables."""

CLONE_THREAD = 0x00010000
NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_PRCTL_OPTIONS = (2, 3, 15, 16, 23, 39, 0x53564D41)
"""Get parent-death signal, get dumpable, set and get name, read bounding set, get no_new_privs,
name a mapping (glibc)."""
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_AF_UNIX = 1


class Machine(NamedTuple):
    """What differs between processor architectures."""

    audit_arch: int
    numbers: dict[str, int]


def _numbers(table: str) -> dict[str, int]:
    pairs = (item.split("=") for item in table.split())
    return {name: int(number) for name, number in pairs}


MACHINES = {
    "x86_64": Machine(0xC000003E, _numbers(X86_64)),
    "aarch64": Machine(0xC00000B7, _numbers(AARCH64)),
}


def build_filter(machine: str, *, child_processes: bool, driver: bool = False) -> bytes:
    """The BPF program, 8 bytes an instruction.

    Args:
        machine: `platform.machine()`.
        child_processes: allow fork and exec.
        driver: for the sandbox's own process, which watches and reaps.

    Raises:
        SandboxError: no table for this machine.
    """
    if machine not in MACHINES:
        raise SandboxError(
            explain(
                f"sandbox layer {Layer.SECCOMP.value} is missing: unknown machine",
                got=machine,
                expected=", ".join(MACHINES),
                remedy=remedy(Layer.SECCOMP),
            )
        )
    audit_arch, numbers = MACHINES[machine]
    program = [
        _op(_LOAD, _ARCH_AT),
        _op(_EQUAL, audit_arch, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [_op(_AT_LEAST, _X32_BIT, 0, 1), _op(_RETURN, _KILL)]
    for name in _CONDITIONAL:
        program += _guarded(numbers[name], _condition(name, child_processes))
    refused = {"clone3", *_CONDITIONAL}
    if not driver:
        refused.update(_DRIVER_ONLY)
        if not child_processes:
            refused.update(_PROCESS_CALLS)
    program += _guarded(numbers["clone3"], [_op(_RETURN, _ERRNO | errno.ENOSYS)])
    program += _ranges(sorted(each for name, each in numbers.items() if name not in refused))
    program += [
        _op(_GREATER, _LAST_KNOWN, 0, 1),
        _op(_RETURN, _ERRNO | errno.ENOSYS),
        _op(_RETURN, _ERRNO | errno.EPERM),
    ]
    return b"".join(program)


def this_machine() -> str:
    """The name of this machine's processor architecture."""
    return platform.machine()


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _guarded(number: int, body: list[bytes]) -> list[bytes]:
    """Run `body`, which must return, for one system call; fall through for the others."""
    return [_op(_EQUAL, number, 0, len(body)), *body]


def _condition(name: str, child_processes: bool) -> list[bytes]:
    """What the first or second argument of a call must be."""
    first, second = _op(_LOAD, _ARGUMENT_AT), _op(_LOAD, _ARGUMENT_AT + 8)
    if name == "clone":
        body = [first, _op(_AND, NAMESPACE_FLAGS), _op(_EQUAL, 0, 0, 1)]
        if not child_processes:
            # Without CLONE_THREAD it would be a process: jump over the four that follow to EPERM.
            body = [first, _op(_AND, CLONE_THREAD), _op(_EQUAL, 0, 4, 0), *body]
        return [*body, _op(_RETURN, _ALLOW), _op(_RETURN, _ERRNO | errno.EPERM)]
    load, accepted = {
        "prctl": (first, _PRCTL_OPTIONS),
        "ioctl": (second, _IOCTL_REQUESTS),
        "prlimit64": (first, (0,)),
        "socketpair": (first, (_AF_UNIX,)),
    }[name]
    tests = [
        _op(_EQUAL, each, len(accepted) - position, 0) for position, each in enumerate(accepted)
    ]
    return [load, *tests, _op(_RETURN, _ERRNO | errno.EPERM), _op(_RETURN, _ALLOW)]


def _ranges(numbers: list[int]) -> list[bytes]:
    """ALLOW for the numbers, in ascending runs; EPERM as soon as a run's start is passed."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after != before + 1), numbers[-1]]
    program = []
    for start, end in zip(starts, ends, strict=True):
        program += [
            _op(_AT_LEAST, start, 1, 0),
            _op(_RETURN, _ERRNO | errno.EPERM),
            _op(_GREATER, end, 1, 0),
            _op(_RETURN, _ALLOW),
        ]
    return program
