"""What one sandboxed run may use, and the layers that hold it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from still_core.errors import ConfigError, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of one run, or of one session.

    Raises:
        ConfigError: a bound lies outside of its range.
    """

    timeout_s: float = 5.0
    """Wall-clock seconds of a run, or of each block of a session; (0, 3600]."""
    memory_mb: int = 512
    """Address space beyond the bare interpreter's, per process, in MiB; [16, 65536]."""
    threads: int = 32
    """Threads (and processes, where allowed) alive at once; [1, 512]."""
    child_processes: bool = False
    """Allow fork and exec inside. Their memory is then added up by sampling, every 50 ms."""
    disk_mb: int = 64
    """Size of the private /tmp, in MiB of memory; [1, 4096]. Also the largest file."""
    num_files: int = 4096
    """Files, folders and links under /tmp; [16, 1000000]."""
    open_files: int = 64
    """Open descriptors per process; [16, 1024]."""
    output_bytes: int = 65_536
    """Kept bytes of stdout, and of stderr; the rest is read, counted and dropped; [64, 2**26]."""
    value_bytes: int = 65_536
    """Longest JSON of a returned value; [64, 131072]."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for each in fields(self):
            if each.name not in _RANGES:
                continue
            low, high = _RANGES[each.name]
            value = getattr(self, each.name)
            if isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(
                    explain(
                        f"sandbox limit {each.name} out of range",
                        got=value,
                        expected=f"{low:g} to {high:g}",
                    )
                )


_RANGES: dict[str, tuple[float, float]] = {
    "timeout_s": (0.001, 3600),
    "memory_mb": (16, 65_536),
    "threads": (1, 512),
    "disk_mb": (1, 4096),
    "num_files": (16, 1_000_000),
    "open_files": (16, 1024),
    "output_bytes": (64, 2**26),
    "value_bytes": (64, 131_072),
}


class Layer(StrEnum):
    """One layer of the isolation. All are required unless named in `allow_missing`."""

    BUBBLEWRAP = "bubblewrap"
    USER = "user"
    MOUNT = "mount"
    PID = "pid"
    NETWORK = "network"
    IPC = "ipc"
    UTS = "uts"
    CGROUP = "cgroup"
    TMPFS = "tmpfs"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVS = "no_new_privs"
    RLIMITS = "rlimits"
    PROCESSES = "processes"
    SECCOMP = "seccomp"


OPTIONAL = frozenset({Layer.CGROUP, Layer.UTS, Layer.PROCESSES, Layer.SECCOMP})
"""Layers that `allow_missing` may name; without the others there is no sandbox to speak of."""

_NAMESPACES = (
    "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0 user.max_{name}_namespaces=65536; "
    "in a container, run it with --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined"
)
_REMEDIES = {
    Layer.BUBBLEWRAP: "install it: apt-get install bubblewrap, or dnf install bubblewrap",
    Layer.USER: _NAMESPACES.format(name="user"),
    Layer.MOUNT: _NAMESPACES.format(name="mnt"),
    Layer.PID: _NAMESPACES.format(name="pid"),
    Layer.NETWORK: _NAMESPACES.format(name="net"),
    Layer.IPC: _NAMESPACES.format(name="ipc"),
    Layer.UTS: _NAMESPACES.format(name="uts"),
    Layer.CGROUP: _NAMESPACES.format(name="cgroup"),
    Layer.TMPFS: "use a Linux kernel of 5.14 or later, whose user namespaces may mount tmpfs",
    Layer.CAPABILITIES: "use a Linux kernel of 5.14 or later",
    Layer.NO_NEW_PRIVS: "use a Linux kernel of 5.14 or later",
    Layer.RLIMITS: "raise the hard limits of this process (ulimit -H)",
    Layer.PROCESSES: "use a Linux kernel of 5.14 or later, and a process whose root may become "
    "another user",
    Layer.SECCOMP: "use x86_64 or aarch64 and a kernel with CONFIG_SECCOMP_FILTER",
}


def remedy(layer: Layer) -> str:
    """What a person can do to get `layer`."""
    weaker = (
        f"; or run without it, weaker, by allow_missing=({layer.value!r},)"
        if layer in OPTIONAL
        else ""
    )
    return _REMEDIES[layer] + weaker
