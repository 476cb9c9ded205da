"""The worker process: judges one pair after another, read from stdin, answered on stdout.

Protocol: 4 bytes big-endian length, then JSON. The worker says `{"ready": true}` once, then one
object per request. It takes its limits from the command line before it reads anything, imports no
`__main__` of its caller, and dies with the process that started it. Nothing here watches the clock:
the deadline is the caller's, by SIGKILL.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

HEADER = struct.Struct(">I")
MAX_MESSAGE = 1 << 22
RECURSION_LIMIT = 4000
"""Python frames; the readers' own depth caps are far below."""


def read_message(stream: BinaryIO) -> Any:
    """The next message, None at end of file."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    (length,) = HEADER.unpack(head)
    if length > MAX_MESSAGE:
        raise ValueError(f"message of {length} bytes")
    return json.loads(stream.read(length))


def encode_message(message: Any) -> bytes:
    """A message as bytes with its length in front."""
    body = json.dumps(message).encode()
    return HEADER.pack(len(body)) + body


def limit_resources(memory_mb: int) -> None:
    """Cap this process: address space, no core file, no file may grow."""
    import resource

    memory = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent goes; elsewhere end of file on stdin has to do."""
    if sys.platform.startswith("linux"):
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)


def serve(memory_mb: int, parent: int, *preload: str) -> None:
    """Answer requests until stdin ends; modules in `preload` are imported before the first."""
    limit_resources(memory_mb)
    die_with_parent(parent)
    sys.setrecursionlimit(RECURSION_LIMIT)
    from still_core.verify import symbolic
    from still_core.verify.judging import judge_request

    for name in preload:
        importlib.import_module(name)
    requests = sys.stdin.buffer
    # Whatever a library prints must not reach the protocol's pipe.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def announce(event: str) -> None:
        replies.write(encode_message({event: True}))

    symbolic.announce = announce
    replies.write(encode_message({"ready": True}))
    while (request := read_message(requests)) is not None:
        replies.write(encode_message(_reply(judge_request, request)))


def _reply(judge: Any, request: Any) -> dict[str, Any]:
    try:
        result: dict[str, Any] = judge(request)
        return result
    except MemoryError:
        return {"outcome": "unparsable", "rule": "memory_cap", "spent": True}
    except RecursionError:
        return {"outcome": "unparsable", "rule": "depth_cap"}
    except Exception as error:
        # Reported to the caller as a verdict of its own kind: the verifier's fault, not the
        # answer's.
        return {
            "outcome": "error",
            "rule": f"raised:{type(error).__name__}",
            "text": str(error)[:500],
        }


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
