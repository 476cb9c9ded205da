"""Memory of all processes of a run, for runs that may have several."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def tree_memory_mb(pidfd: int) -> float:
    """Resident MiB of all descendants of a process beyond what each shares with its files.

    Pages that forked processes share are counted for each: an upper bound. 0.0 once it has ended.
    """
    root = _pid_of(pidfd)
    if root is None:
        return 0.0
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            parent = _parent(entry.path)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    total, frontier = 0, [root]
    while frontier:
        pid = frontier.pop()
        frontier += children.get(pid, [])
        if pid != root:
            total += _private_pages(pid)
    return total * _PAGE_MB


def _pid_of(pidfd: int) -> int | None:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            pid = int(line.split()[1])
            return pid if pid > 0 else None
    return None


def _parent(path: str) -> int | None:
    try:
        text = Path(path, "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    return int(text.rpartition(")")[2].split()[1])


def _private_pages(pid: int) -> int:
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    except OSError:
        return 0
    return int(resident) - int(shared)
