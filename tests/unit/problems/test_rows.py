"""Reading rows: formats, hostile bytes, exact places, bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import resource
import zipfile
from pathlib import Path

import pytest

from still_core.errors import ConfigError, DataError
from still_core.problems.rows import Limits, Quarantined, Row, read_rows


def rows_of(path: Path, **limits: int) -> list[Row | Quarantined]:
    return list(read_rows(str(path), limits=Limits(**limits)))


def places(items: list[Row | Quarantined]) -> list[tuple[int, int, str]]:
    """(line, index, reason or "ok") of every row."""
    return [(i.line, i.index, i.reason if isinstance(i, Quarantined) else "ok") for i in items]


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "bad utf-8": (b'{"a": "\xff\xfe"}', "bad_utf8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "bad_utf8"),
    "raw nul": (b'{"a": "x\x00y"}', "bad_json"),
    "escaped nul": (b'{"a": "x\\u0000y"}', "nul"),
    "nul in a key": (b'{"a\\u0000": 1}', "nul"),
    "lone surrogate": (b'{"a": "\\ud800"}', "lone_surrogate"),
    "surrogate deep inside": (b'{"a": [{"b": ["\\udfff"]}]}', "lone_surrogate"),
    "cut short": (b'{"a": "x', "bad_json"),
    "two objects": (b'{"a": 1}{"a": 2}', "bad_json"),
    "plain text": (b"hello", "bad_json"),
    "single quotes": (b"{'a': 1}", "bad_json"),
    "number too long": (b'{"a": ' + b"9" * 5000 + b"}", "bad_json"),
    "duplicate key": (b'{"a": 1, "a": 2}', "duplicate_key"),
    "duplicate key inside": (b'{"b": {"a": 1, "a": 2}}', "duplicate_key"),
    "deep lists": (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "too_deep"),
    "very deep lists": (b"[" * 200_000 + b"]" * 200_000, "too_deep"),
    "very deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_quarantined_with_its_line_and_reason(name: str, tmp_path: Path) -> None:
    line, reason = BAD_LINES[name]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n\n' + line.replace(b"\n", b" ") + b'\n{"a": 3}\n')
    assert places(rows_of(file)) == [(1, 0, "ok"), (3, 1, reason), (4, 2, "ok")]


NOT_INSIDE_ARRAYS = ("two objects", "cut short", "utf-16")
"""The first is two rows there, the others take their neighbour with them."""


@pytest.mark.parametrize("name", [n for n in BAD_LINES if n not in NOT_INSIDE_ARRAYS])
def test_a_bad_element_of_an_array_is_quarantined_alone(name: str, tmp_path: Path) -> None:
    element, reason = BAD_LINES[name]
    file = tmp_path / "rows.json"
    file.write_bytes(b'[\n{"a": 1},\n' + element + b',\n{"a": 3}\n]')
    assert places(rows_of(file)) == [(2, 0, "ok"), (3, 1, reason), (4, 2, "ok")]


def test_a_lost_quote_costs_its_own_element_only(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[\n{"a": "x},\n{"a": 2},\n{"a": 3}\n]')
    found = rows_of(file)
    assert [item.value for item in found if isinstance(item, Row)][-1] == {"a": 3}
    assert any(isinstance(item, Quarantined) for item in found)


def test_a_file_that_ends_inside_a_row_names_the_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[{"a": 1},\n{"a": [1, 2')
    assert places(rows_of(file)) == [(1, 0, "ok"), (2, 1, "truncated_file")]


def test_bom_and_crlf_are_no_part_of_a_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert [item.value for item in rows_of(file)] == [{"a": 1}, {"a": 2}]  # type: ignore[union-attr]


def test_unicode_line_separators_do_not_split_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    text = "a\u2028b\u0085c\x0bd"
    file.write_text(json.dumps({"a": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    # The vertical tab is a control character, which json.dumps escapes.
    assert [item.value for item in rows_of(file)] == [{"a": text}]  # type: ignore[union-attr]


def test_a_line_above_the_bound_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("wb") as stream:
        stream.write(b'{"a": 1}\n{"a": "')
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n{"a": 3}\n')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = rows_of(file, max_row_bytes=1 << 20)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert places(found) == [(1, 0, "ok"), (2, 1, "too_long"), (3, 2, "ok")]
    assert grown_kib < 40 * 1024


def test_an_element_above_the_bound_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    with file.open("wb") as stream:
        stream.write(b'[{"a": 1},\n{"a": "')
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"},\n{"a": 3}]')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = rows_of(file, max_row_bytes=1 << 20)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert places(found) == [(1, 0, "ok"), (2, 1, "too_long"), (3, 2, "ok")]
    assert grown_kib < 40 * 1024


def test_a_row_of_exactly_the_bound_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = b'{"a": "' + b"x" * 91 + b'"}'
    file.write_bytes(row + b"\r\n" + row[:-2] + b'y"}\r\n')
    assert len(row) == 100
    assert places(rows_of(file, max_row_bytes=100)) == [(1, 0, "ok"), (2, 1, "too_long")]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_chunk_borders_do_not_change_what_is_read(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [
        {"a": 'one " and [ \\ {'},
        {"a": 'q"\\ \\"[{,}]', "b": [1, [2, {"c": "]"}]]},
        {"a": "\u4e2d\n"},
        {},
    ]
    file = tmp_path / "rows.json"
    file.write_text(
        json.dumps({"keywords": ["x"], "example": values}, indent=1, ensure_ascii=False)
    )
    monkeypatch.setattr("still_core.problems.documents.CHUNK_BYTES", chunk)
    assert [item.value for item in rows_of(file)] == values  # type: ignore[union-attr]


def test_every_container_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [{"a": 'x, "y"\n', "b": "1"}, {"a": "\u00e9", "b": "2"}]
    lines = "".join(json.dumps(value) + "\n" for value in values)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.json").write_text(json.dumps(values, indent=2))
    (tmp_path / "c.json").write_text(json.dumps({"data": values}))
    (tmp_path / "d.json").write_text(lines)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "e.jsonl.bz2").write_bytes(bz2.compress(lines.encode()))
    (tmp_path / "e.json.xz").write_bytes(lzma.compress(json.dumps(values).encode()))
    (tmp_path / "e.JSONL.zst").write_bytes(pa.compress(lines.encode(), "zstd", asbytes=True))
    (tmp_path / "f.csv").write_text('a,b\n"x, ""y""\n",1\n\u00e9,2\n', encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "g.parquet")
    with zipfile.ZipFile(tmp_path / "h.zip", "w") as archive:
        archive.writestr("one.json", json.dumps(values[0]))
        archive.writestr("two.json", json.dumps(values[1]))
    for file in sorted(tmp_path.iterdir()):
        read = [item.value for item in rows_of(file) if isinstance(item, Row)]
        assert read == values, file.name


def test_a_folder_is_read_file_by_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"a": 2}\n')
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "notes.txt").write_text("no data")
    assert [item.value for item in rows_of(tmp_path)] == [{"a": 1}, {"a": 2}]  # type: ignore[union-attr]


def test_csv_rows_with_too_many_cells_or_bad_bytes_are_quarantined(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'a,b\n1,2\n1,2,3\n\xff,2\n"two\nlines",5\n6\n7,8\n')
    assert places(rows_of(file)) == [
        (2, 0, "ok"),
        (3, 1, "field_count"),
        (4, 2, "bad_utf8"),
        (5, 3, "ok"),
        (7, 4, "field_count"),
        (8, 5, "ok"),
    ]


def test_a_cut_gzip_file_keeps_what_came_before_the_cut(tmp_path: Path) -> None:
    lines = b"".join(b'{"a": %d, "b": "%d"}\n' % (i, i * i) for i in range(5000))
    file = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(lines)
    file.write_bytes(whole[: len(whole) // 2])
    found = rows_of(file)
    assert isinstance(found[-1], Quarantined)
    assert found[-1].reason in ("truncated_file", "bad_json")
    assert 100 < sum(isinstance(item, Row) for item in found) < 5000


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_damaged_compressed_files_are_told(suffix: str, tmp_path: Path) -> None:
    import pyarrow as pa

    lines = "".join(json.dumps({"problem": "p" * i}) + "\n" for i in range(500)).encode()
    packed = {
        "gz": gzip.compress(lines),
        "bz2": bz2.compress(lines),
        "xz": lzma.compress(lines),
        "zst": pa.compress(lines, "zstd", asbytes=True),
    }[suffix]
    file = tmp_path / f"rows.jsonl.{suffix}"
    middle = len(packed) // 2
    for damaged in (packed[:middle], packed[:middle] + b"\xa5" * 40, lines):
        file.write_bytes(damaged)
        last = list(rows_of(file))[-1]
        assert isinstance(last, Quarantined)
        assert last.reason == "truncated_file"


def test_parquet_strings_that_are_not_utf8_are_quarantined_by_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": column}), file)
    assert places(rows_of(file)) == [(1, 0, "ok"), (2, 1, "bad_utf8"), (3, 2, "ok")]


def test_a_path_with_nothing_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data there"):
        rows_of(tmp_path / "missing.jsonl")


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_text("not parquet")
    with pytest.raises(DataError, match="not a Parquet file"):
        rows_of(file)


def test_empty_files_hold_no_rows(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.json", "c.csv"):
        (tmp_path / name).write_text("")
        assert rows_of(tmp_path / name) == []
    (tmp_path / "d.json").write_text("[]")
    assert rows_of(tmp_path / "d.json") == []


def test_a_cut_gzip_document_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.json.gz"
    whole = gzip.compress(json.dumps({"problem": "x" * 5000, "n": list(range(3000))}).encode())
    file.write_bytes(whole[:-400])
    assert places(rows_of(file)) == [(1, 0, "truncated_file")]


@pytest.mark.parametrize("header", ["a,a", "a,\udcff"])
def test_a_csv_header_that_would_lose_columns_is_refused(header: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(header.encode("utf-8", "surrogateescape") + b"\n1,2\n")
    with pytest.raises(DataError, match="unreadable CSV header"):
        rows_of(file)


def test_a_damaged_member_of_an_archive_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", '{"a": 1}\n' * 500)
        archive.writestr("b.jsonl", '{"a": 2}\n')
    broken = bytearray(file.read_bytes())
    broken[45:60] = b"\xff" * 15
    file.write_bytes(broken)
    found = rows_of(file)
    assert any(isinstance(item, Quarantined) for item in found)
    assert isinstance(found[-1], Row)
    assert found[-1].value == {"a": 2}


def test_a_bucket_that_can_not_be_reached_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DataError, match="can not read s3://nowhere"):
        list(read_rows("s3://nowhere/rows.jsonl"))
