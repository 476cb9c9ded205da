"""Strict JSON from hostile hands, and bounded reading of streams."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from still_core.errors import ConfigError
from still_core.sandbox import Limits, Sandbox, SandboxResult, SandboxStatus
from still_core.sandbox.capture import Capture
from still_core.sandbox.cell import Cell
from still_core.sandbox.wire import WireDefect, strict_json


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"1", 1),
        (b'{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (b'"[[[[{{{{\\"[["', '[[[[{{{{"[['),
        (b"[" * 64 + b"]" * 64, None),
    ],
)
def test_plain_json_is_read(data: bytes, value: object) -> None:
    read = strict_json(data, max_bytes=1000)
    assert value is None or read == value


@pytest.mark.parametrize(
    ("data", "defect"),
    [
        (b"x" * 1001, "too long"),
        (b"[" * 65 + b"]" * 65, "too deep"),
        (b"[" * 900, "too deep"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "too deep"),
        (b'"a" ' + b"[" * 90, "too deep"),
        (b"NaN", "not JSON"),
        (b"[Infinity]", "not JSON"),
        (b"-Infinity", "not JSON"),
        (b'{"a": 1, "a": 2}', "not JSON"),
        (b'[{"a": 1, "a": 1}]', "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"1 2", "not JSON"),
        (b'"open', "not JSON"),
        (b"\x80\x04N.", "not JSON"),
    ],
)
def test_anything_else_is_a_named_defect(data: bytes, defect: str) -> None:
    with pytest.raises(WireDefect, match=f"^{defect}$"):
        strict_json(data, max_bytes=1000)


def test_a_number_of_many_digits_is_a_defect_and_not_a_quadratic_parse() -> None:
    started = time.monotonic()
    with pytest.raises(WireDefect, match="not JSON"):
        strict_json(b"1" * 100_000, max_bytes=200_000)
    assert time.monotonic() - started < 1.0


def test_brackets_and_quotes_of_any_kind_are_scanned_in_linear_time() -> None:
    for data in (b'"' + b"\\" * 130_000, b'"\\' * 65_000, b'[""' * 40_000, b'"' * 130_001):
        started = time.monotonic()
        with pytest.raises(WireDefect):
            strict_json(data, max_bytes=131_072)
        assert time.monotonic() - started < 1.0


def _captured(data: bytes, *, limit: int, keep_tail: bool) -> Capture:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    capture = Capture(reader, limit=limit)
    capture.begin(keep_tail=keep_tail)

    def write() -> None:
        with open(writer, "wb") as stream:
            stream.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    while capture.drain():
        time.sleep(0.0005)
    thread.join()
    os.close(reader)
    return capture


def test_the_beginning_is_kept() -> None:
    capture = _captured(b"0123456789" * 100, limit=64, keep_tail=False)
    assert capture.text() == ("0123456789" * 7)[:64]
    assert (capture.total, capture.truncated) == (1000, True)


def test_the_beginning_and_the_end_are_kept() -> None:
    capture = _captured(b"a" * 500 + b"b" * 500, limit=64, keep_tail=True)
    assert capture.text() == "a" * 32 + "\n[936 bytes left out]\n" + "b" * 32


@pytest.mark.parametrize("keep_tail", [False, True])
def test_output_of_just_the_limit_is_whole(keep_tail: bool) -> None:
    capture = _captured(b"x" * 64, limit=64, keep_tail=keep_tail)
    assert (capture.text(), capture.truncated) == ("x" * 64, False)


def test_a_stream_of_400_megabytes_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    capture = Capture(reader, limit=65_536)
    capture.begin(keep_tail=True)

    def write() -> None:
        chunk = bytes(2**20)
        for _ in range(400):
            view = memoryview(chunk)
            while view:
                view = view[os.write(writer, view) :]
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    while capture.drain():
        pass
    thread.join()
    os.close(reader)
    assert capture.total == 400 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


@pytest.mark.parametrize(
    "bad",
    [
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"timeout_s": 1e9},
        {"memory_mb": 1},
        {"threads": 0},
        {"disk_mb": 0},
        {"num_files": 10**7},
        {"open_files": 8},
        {"output_bytes": 0},
        {"value_bytes": 2**30},
    ],
)
def test_a_limit_out_of_range_is_named(bad: dict[str, float]) -> None:
    (name,) = bad
    with pytest.raises(ConfigError, match=name):
        Limits(**bad)  # type: ignore[arg-type]


def test_a_result_is_plain_json() -> None:
    row = SandboxResult(status=SandboxStatus.TIMEOUT, missing_layers=("uts",)).to_json()
    assert row["status"] == "timeout"
    assert row["missing_layers"] == ["uts"]
    assert {"stdout", "stderr", "seconds", "exit_code", "stdout_truncated"} <= set(row)


class Absent:
    """A backend that has no cell left, and counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def spawn(self) -> Cell:
        raise RuntimeError("no cell is left")

    def close(self) -> None:
        self.closed += 1


def test_another_backend_can_be_plugged_in() -> None:
    made: list[Absent] = []

    def make() -> Absent:
        made.append(Absent())
        return made[-1]

    sandbox = Sandbox(backend=make)
    with pytest.raises(RuntimeError, match="no cell is left"):
        sandbox.run("1")
    sandbox.close()
    assert [each.closed for each in made] == [1]
