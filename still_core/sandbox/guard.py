"""The sandbox's process outside of it: starts bubblewrap as an unprivileged user, ends it with the
host. Standard library only; run as a script, with an empty environment.

    configuration on stdin -> stage folders (root only) -> become nobody -> bwrap -> wait

Where the host process is root, bubblewrap runs as a user id that owns nothing: the kernel binds
neither RLIMIT_NPROC nor file permissions to root. That user can not reach an interpreter under,
say, /root; so its folders are first bind-mounted, in a mount namespace of the guard's own, to a
place that everybody can reach.

The guard has one thread and lives as long as the sandbox: the parent-death signal that ties
bubblewrap to it follows threads, and those of the host come and go.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x00020000, 0x1000, 0x4000, 0x40000
NAMESPACES = {
    "user": 0x10000000,
    "mount": CLONE_NEWNS,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}
STAGE = "/tmp"
"""Covered by a tmpfs in the guard's own mount namespace only."""
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Start bubblewrap as configured and wait for its end, or for the host's.

    Configuration: `command` (with `{i}` for the i-th of `folders`), `folders` (host paths), `user`
    (a user id, or null to stay), `keep` (descriptors to pass on), `life` (a pipe that ends with
    the host).
    """
    config = json.loads(sys.stdin.buffer.read())
    places = config["folders"]
    # Should memory run out, the kernel is to choose what runs in here before anything else.
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")
    if config["user"] is not None:
        if not all(reachable(folder) for folder in places):
            places = stage(places)
        become(config["user"])
    command = [
        places[int(word[1:-1])] if word[:1] == "{" and word[-1:] == "}" else word
        for word in config["command"]
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=config["keep"], env={})
    for each in config["keep"]:
        os.close(each)
    ended = os.pidfd_open(process.pid)
    ready, _, _ = select.select([config["life"], ended], [], [])
    if ended not in ready:
        # The group, this process included: killed by itself in the middle of its set-up, bubblewrap
        # leaves a child that waits for it for ever. What is set up dies with bubblewrap.
        os.killpg(0, signal.SIGKILL)
    status = process.wait()
    if ended in ready and status:
        for layer, reason in missing_namespaces():
            print(f"layer {layer}: {reason}", file=sys.stderr)
    return status


def become(user: int) -> None:
    """Give up root. Where the kernel knows no other user (a container with one mapped id) this
    stays what it is, and the probe of the process limit, inside, says what that means."""
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        print(f"can not become user {user}: {error}", file=sys.stderr)


def missing_namespaces() -> list[tuple[str, str]]:
    """Which kinds of namespaces this user can not make, and why; each tried in a child."""
    missing = []
    for layer, flag in NAMESPACES.items():
        reader, writer = os.pipe()
        if os.fork() == 0:
            for each in dict.fromkeys((NAMESPACES["user"], flag)):
                if LIBC.unshare(each) < 0:
                    os.write(writer, os.strerror(ctypes.get_errno()).encode())
                    break
            os._exit(0)
        os.close(writer)
        with open(reader) as stream:
            reason = stream.read()
        os.wait()
        if reason:
            missing.append((layer, reason))
    return missing


def reachable(folder: str) -> bool:
    """Whether any user can get at a folder: every parent lets others pass."""
    path = os.path.realpath(folder)
    while True:
        if not os.stat(path).st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def stage(folders: list[str]) -> list[str]:
    """Bind-mount folders to where every user can reach them, seen by this process alone.

    Raises:
        OSError: the kernel refuses; the text names the step.
    """

    def check(step: str, result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{step}: {os.strerror(number)}")

    check("unshare the mount namespace", LIBC.unshare(CLONE_NEWNS))
    check("make mounts private", LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    # Opened before the stage covers what may be the place of one of them.
    opened = [os.open(folder, os.O_PATH) for folder in folders]
    stage_options = b"mode=755,size=64k"
    check("mount a stage", LIBC.mount(b"tmpfs", STAGE.encode(), b"tmpfs", 0, stage_options))
    places = []
    for index, (folder, descriptor) in enumerate(zip(folders, opened, strict=True)):
        place = f"{STAGE}/{index}"
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        source = f"/proc/self/fd/{descriptor}".encode()
        check(f"bind {folder}", LIBC.mount(source, place.encode(), None, MS_BIND | MS_REC, None))
        os.close(descriptor)
        places.append(place)
    return places


if __name__ == "__main__":
    sys.exit(main())
