"""Which folders of this machine the sandboxed interpreter needs, and where it sees them.

running interpreter (+ packages asked for) -> Mount list -> bubblewrap's arguments
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from still_core.errors import ConfigError, explain

INSIDE = "/python"
"""Where the interpreter stands inside, whatever its place outside."""
PACKAGES = "/packages"


class Mount(NamedTuple):
    """One read-only file or folder."""

    outside: str
    inside: str


class Runtime(NamedTuple):
    """What there is to see inside."""

    mounts: tuple[Mount, ...]
    executable: str
    hidden: tuple[str, ...]
    """Folders inside that an empty one covers."""
    environment: dict[str, str]
    paths: tuple[str, ...]
    """Further entries of sys.path."""


def find_runtime(packages: tuple[str, ...] = ()) -> Runtime:
    """The interpreter that runs this, its standard library, system libraries and `packages`.

    Args:
        packages: distributions by name, whose files and dependencies' files are to be importable.

    Raises:
        ConfigError: a package is not installed.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    executable = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    mounts = [
        Mount(executable, f"{INSIDE}/bin/{version}"),
        Mount(library, f"{INSIDE}/lib/{version}"),
    ]
    shared = Path(sys.base_prefix, "lib", sysconfig.get_config_var("INSTSONAME") or "none")
    if shared.is_file():
        mounts.append(Mount(os.path.realpath(shared), f"{INSIDE}/lib/{shared.name}"))
    mounts += [Mount(str(each), str(each)) for each in _system_libraries()]
    entries = sorted({entry for name in packages for entry in _package_entries(name)})
    mounts += [Mount(entry, f"{PACKAGES}/{os.path.basename(entry)}") for entry in entries]
    hidden = [
        f"{INSIDE}/lib/{version}/{name}"
        for name in ("site-packages", "dist-packages")
        if Path(library, name).is_dir()
    ]
    return Runtime(
        mounts=tuple(mounts),
        executable=f"{INSIDE}/bin/{version}",
        hidden=tuple(hidden),
        environment={"LD_LIBRARY_PATH": f"{INSIDE}/lib"},
        paths=(PACKAGES,) if entries else (),
    )


def _system_libraries() -> list[Path]:
    """Folders with the C library and the loader; no programs."""
    triple = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    names = ["/lib64", "/usr/lib64", f"/lib/{triple}", f"/usr/lib/{triple}"]
    # Alpine keeps loader and libraries in /lib itself.
    if not any(Path(name).is_dir() for name in names):
        names = ["/lib", "/usr/lib"]
    if os.uname().machine == "aarch64":
        names += [str(each) for each in Path("/lib").glob("ld-linux-aarch64.so.*")]
    return [Path(name) for name in names if Path(name).exists()]


def _package_entries(name: str, seen: set[str] | None = None) -> set[str]:
    """Top-level files and folders in site-packages of a distribution and what it depends on."""
    seen = set() if seen is None else seen
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return set()
    seen.add(key)
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ConfigError(
            explain(
                "a package for the sandbox is not installed",
                got=name,
                remedy="install it, or name another",
            )
        ) from None
    root = Path(str(distribution.locate_file("")))
    tops = {each.parts[0] for each in distribution.files or () if each.parts[0] != ".."}
    entries = {str(root / top) for top in tops if top != "__pycache__" and (root / top).exists()}
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement and ";" not in requirement:
            wanted = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert wanted is not None
            entries |= _package_entries(wanted[0], seen)
    return entries


def bubblewrap_arguments(
    runtime: Runtime, allow_missing: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """Arguments that build the outer sandbox, and the host folders for their `{i}`.

    Every writable file system that bubblewrap makes is made read-only again at the end; what a run
    may write is a tmpfs of its own.
    """
    words = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"]
    words += [] if "uts" in allow_missing else ["--unshare-uts", "--hostname", "sandbox"]
    words += [] if "cgroup" in allow_missing else ["--unshare-cgroup"]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--uid", "1000", "--gid", "1000", "--clearenv"]
    folders: list[str] = []
    for mount in runtime.mounts:
        words += ["--ro-bind", f"{{{len(folders)}}}", mount.inside]
        folders.append(mount.outside)
    for place in runtime.hidden:
        words += ["--size", "4096", "--tmpfs", place, "--remount-ro", place]
    words += ["--size", "65536", "--tmpfs", "/dev"]
    for device in ("null", "zero", "full", "random", "urandom"):
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    words += ["--remount-ro", "/dev", "--size", "4096", "--tmpfs", "/tmp", "--remount-ro", "/"]
    for name, value in runtime.environment.items():
        words += ["--setenv", name, value]
    # One order of sets and dictionaries in every run: the same code prints the same.
    words += ["--setenv", "PYTHONHASHSEED", "0", "--setenv", "OPENBLAS_NUM_THREADS", "1"]
    return [*words, "--chdir", "/"], folders
