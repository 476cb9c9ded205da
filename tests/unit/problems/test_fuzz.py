"""Fuzzed rows crash nothing and lose nothing: an independent count of rows is the oracle."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from still_core.problems.collect import collect
from still_core.problems.decontaminate import fingerprint
from still_core.problems.recipe import SourceSpec
from still_core.problems.rows import Limits
from still_core.problems.sources import ADAPTERS

LIMITS = Limits(max_row_bytes=100_000, max_depth=32)
VALUES: list[Any] = [
    None, True, 0, -1.5, float("nan"), 10**40, "", " ", "x", "\u4e2d\u6587", "\ud800", "\x00",
    "\U0001f600", "\\boxed{", "\\boxed{4}", "#### 7", [], {}, [[]], ["A"], [1, None], {"a": 1},
    {"text": ["x", "y"], "label": ["A", "B"]}, [{"from": "human", "value": "q"}],
    [{"role": "user", "content": None}], {"value": 3}, "1" * 500, "{" * 300, ["A", ["B"]],
]  # fmt: skip
KEYS = [
    "problem", "question", "Question", "solution", "answer", "Answer", "source", "year", "level",
    "message_1", "message_2", "role_1", "conversations", "messages", "prompt", "reward_model",
    "answerKey", "choices", "test", "testcase", "instruction", "entry_point", "meta", "difficulty",
    "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "0", "1",
    "deepseek_reasoning", "ground_truth_solution", "combined_text", "final_answer", "context",
    "prompt_sft", "test_list", "options", "statement", "gold", "answers", "unique_id", "modality",
]  # fmt: skip


def fuzzed_row(rng: random.Random) -> Any:
    """A row of plausible keys with any values, now and then no object at all."""
    if rng.random() < 0.05:
        return rng.choice(VALUES)
    return {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.randint(0, 12))}


def damaged(line: bytes, rng: random.Random) -> bytes:
    """The line with bytes lost, changed, doubled, or made far too long or deep."""
    kind = rng.randrange(9)
    at = rng.randrange(len(line) + 1)
    damage: dict[int, bytes] = {
        0: line[:at],
        1: line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :],
        2: line[:at] + b"\xff\xfe\xc3\x28" + line[at:],
        3: line[:at] + b"\x00" + line[at:],
        4: b'{"problem": "' + b"x" * 150_000 + b'"}',
        5: b'{"a": ' * 500 + b"1" + b"}" * 500,
        6: b'{"problem": 1, "problem": 2}',
        7: line + line,
        8: rng.randbytes(rng.randrange(200)),
    }
    return damage[kind].replace(b"\n", b" ").replace(b"\r", b" ")


def fuzzed_lines(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        line = json.dumps(fuzzed_row(rng)).encode()
        lines.append(damaged(line, rng) if rng.random() < 0.3 else line)
    return lines


def check_accounts(path: Path, adapter: str, expected_rows: int) -> Counter[str]:
    """Read a file and hold every count against the number of rows that was written."""
    spec = SourceSpec(name="s", adapter=adapter, path=str(path))
    found = collect([spec], limits=LIMITS)
    (count,) = found.counts
    assert count.rows_in == expected_rows
    assert count.adds_up
    assert count.kept == len(found.problems)
    assert sum(count.quarantined.values()) == len(found.quarantined)
    indices = [p.row for p in found.problems] + [q.index for q in found.quarantined]
    assert len(set(indices)) == len(indices)
    for problem in found.problems:
        # What is kept can be written anywhere.
        json.dumps(problem.to_row(), ensure_ascii=False, allow_nan=False).encode()
    for row in found.quarantined:
        assert row.line >= 1
        row.detail.encode()
    assert found.funnel.num_in == expected_rows
    return Counter(count.quarantined)


def run_jsonl(tmp_path: Path, adapter: str, seed: int, count: int) -> Counter[str]:
    lines = fuzzed_lines(seed, count)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    blank = sum(not line.removeprefix(b"\xef\xbb\xbf").strip() for line in lines)
    reasons = check_accounts(file, adapter, count - blank)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert check_accounts(packed, adapter, count - blank) == reasons
    return reasons


@pytest.mark.parametrize("adapter", sorted(set(ADAPTERS)))
def test_fuzzed_lines_add_up_for_every_adapter(adapter: str, tmp_path: Path) -> None:
    run_jsonl(tmp_path, adapter, seed=1, count=60)


def test_all_kinds_of_damage_are_told_apart(tmp_path: Path) -> None:
    reasons = run_jsonl(tmp_path, "any", seed=2, count=2000)
    assert set(reasons) >= {
        "bad_json", "bad_utf8", "too_long", "too_deep", "duplicate_key", "nul", "lone_surrogate",
        "not_an_object", "missing_field", "mistyped_field",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "adapter"), list(enumerate(sorted(ADAPTERS))))
def test_ten_thousand_fuzzed_lines_add_up(seed: int, adapter: str, tmp_path: Path) -> None:
    run_jsonl(tmp_path, adapter, seed=seed, count=10_000)


@pytest.mark.parametrize("seed", range(20))
def test_sound_elements_of_a_json_array_are_never_lost(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [fuzzed_row(rng) for _ in range(50)]
    file = tmp_path / "rows.json"
    indent = rng.choice([None, 0, 2])
    document = (
        rows if rng.random() < 0.5 else {"keywords": rng.choice(VALUES[6:12]), "example": rows}
    )
    file.write_text(json.dumps(document, indent=indent))
    check_accounts(file, "any", 50)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_json_documents_crash_nothing(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    whole = json.dumps([fuzzed_row(rng) for _ in range(50)], indent=rng.choice([None, 1])).encode()
    for _ in range(20):
        file = tmp_path / "rows.json"
        file.write_bytes(damaged(whole, rng))
        found = collect([SourceSpec(name="s", adapter="any", path=str(file))], limits=LIMITS)
        assert found.counts[0].adds_up


@pytest.mark.parametrize("seed", range(10))
def test_fuzzed_csv_adds_up(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["problem", "answer"])
    cells = ["x", "", 'a "quoted" one', "two\nlines", "\u4e2d", "a,b", "1" * 50, "\x00"]
    for _ in range(100):
        writer.writerow(rng.choices(cells, k=rng.choice([1, 2, 2, 2, 2, 3])))
    file = tmp_path / "rows.csv"
    file.write_text(text.getvalue(), newline="")
    # A row with a single empty cell is written as a blank quoted cell, which is still a row.
    check_accounts(file, "any", 100)


def test_fuzzed_parquet_adds_up(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(3)
    texts = ["x", "", None, "\u4e2d", "\x00", "p" * 300]
    rows = [{"problem": rng.choice(texts), "answer": rng.choice(texts)} for _ in range(600)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=100)
    reasons = check_accounts(file, "any", 600)
    assert set(reasons) == {"missing_field", "nul"}
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(file.read_bytes()[:200] + b"\x00" * 400 + file.read_bytes()[600:])
    found = collect([SourceSpec(name="s", adapter="any", path=str(cut))])
    assert found.counts[0].adds_up
    assert "truncated_file" in found.counts[0].quarantined


HOSTILE = {
    "blanks": " " * 50_000 + "x",
    "blank lines": "\n \n" * 17_000 + "x",
    "open figures": "[asy]" * 10_000,
    "asks": "please reason step by step " * 2_000,
    "options": "A. " * 15_000,
    "braces": "\\boxed{" * 6_000,
    "fractions": "\\frac" * 10_000,
    "commas": "1," * 25_000,
    "marks": "#### " * 10_000,
    "brackets": "(" * 50_000,
    "conclusions": "the answer is " * 3_000,
    "points": "(   7 points " * 3_000,
}
"""About 50 kB each, made to run patterns into the ground."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_linear_time(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    row: dict[str, Any] = dict.fromkeys(KEYS, text)
    row |= {"prompt": [{"role": "user", "content": text}], "source": "math", "year": "1999"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    started = time.process_time()
    for adapter in ADAPTERS:
        found = collect([SourceSpec(name="s", adapter=adapter, path=str(file))])
        assert found.counts[0].adds_up
        for problem in found.problems:
            fingerprint(problem)
    # All adapters together take about half a second; one quadratic pattern takes far longer.
    assert time.process_time() - started < 10
