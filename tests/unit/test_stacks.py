"""Where a thread stands, told from a dump of all threads."""

from __future__ import annotations

import threading

from still_core.stacks import innermost_frame, thread_stacks


def test_the_innermost_frame_is_that_of_the_thread_which_runs_the_function() -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    stacks = thread_stacks()
    leave.set()
    thread.join()
    assert innermost_frame(stacks, file="test_stacks.py", function="work").startswith(
        "wait (threading.py:"
    )
    assert innermost_frame(stacks, file="other.py", function="work") == (
        "a place outside work (other.py)"
    )
