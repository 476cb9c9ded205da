"""The text of a verification's two programs, made by many threads at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from still_core.verify import code_harness

TESTS = "\n".join(f"assert f({n}, [{n}, (1 + 2 * {n})]) == [{n}][0]" for n in range(300))


@pytest.fixture
def collections_switch_threads() -> Iterator[None]:
    """Each collection of garbage lets another thread run, as one that runs a finalizer may."""

    def let_another_run(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_another_run)
    yield
    gc.callbacks.remove(let_another_run)


def names_at_depth(depth: int) -> list[str]:
    """The names, read with so many calls on the stack."""
    return names_at_depth(depth - 1) if depth else code_harness.tested_names("", TESTS)


@pytest.mark.usefixtures("collections_switch_threads")
def test_threads_that_read_tests_at_once_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(names_at_depth, (n % 40 for n in range(60))))
    assert found == [["f"]] * 60
