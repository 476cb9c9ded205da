"""Rows of files as they really are: streamed, bounded, every bad one named with file and line.

path -> files -> Row | Quarantined -> adapters

Reads JSONL, JSON (an array, an object with rows under one key, or a single object), Parquet and
CSV, all but Parquet also compressed (.gz, .bz2, .xz, .zst), and ZIP archives of these; from a local
path, any fsspec URI or a hub data set. Memory is bounded by `Limits.max_row_bytes`, whatever the
length of a line.

A row that can not be read is data, not an error: it comes out as `Quarantined` and is counted. A
file that can not be opened at all raises `DataError`.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qsl

from still_core.errors import ConfigError, DataError, explain
from still_core.problems.documents import CHUNK_BYTES, CUT_ERRORS, elements

_COMMIT = re.compile(r"[0-9a-f]{40}")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".zip")


class MalformedRow(DataError):
    """A row that can not be used; args are (reason code, detail)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one row may cost."""

    max_row_bytes: int = 16 << 20
    """Longer rows are skipped without being held in memory."""
    max_depth: int = 64
    """Deepest nesting of objects and lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row as it stands in its file."""

    file: str
    line: int
    """1-based line on which the row starts; row number + 1 for Parquet and hub data sets."""
    index: int
    """0-based among the rows of this file, bad ones included."""
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A row that was set aside, with its place and why."""

    file: str
    line: int
    index: int
    reason: str
    """bad_utf8, bad_json, too_long, too_deep, duplicate_key, nul, lone_surrogate, truncated_file,
    field_count, not_an_object, missing_field, mistyped_field, ..."""
    detail: str = ""
    id: str = ""
    """`source/row`, as a problem of this row would be called."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {
            "id": self.id,
            "file": self.file,
            "line": self.line,
            "index": self.index,
            "reason": self.reason,
            "detail": self.detail,
        }


def read_rows(
    path: str, *, base: Path | None = None, limits: Limits | None = None
) -> Iterator[Row | Quarantined]:
    """Every row of a file, folder, glob, fsspec URI or hub data set, in a stable order.

    Args:
        path: `rows.jsonl`, `folder/`, `s3://bucket/x.parquet`, `hf:org/name?split=train`.
        base: folder that a relative local path starts from.
        limits: bounds on one row.
    Raises:
        ConfigError: nothing readable stands there.
        DataError: a file can not be opened as what its name says.
    """
    bounds = limits or Limits()
    if path.startswith("hf:"):
        yield from _hub_rows(path)
        return
    for name, opener in _files(path, base):
        yield from _file_rows(name, opener, bounds)


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opens one file anew each time; fsspec only where the path is not local."""

    path: str
    filesystem: Any = None

    def open(self) -> IO[bytes]:
        if self.filesystem is None:
            return open(self.path, "rb")
        # fsspec's own readline takes no limit, which a 100 MB line needs.
        return io.BufferedReader(self.filesystem.open(self.path, "rb"), CHUNK_BYTES)


def _files(path: str, base: Path | None) -> list[tuple[str, _Opener]]:
    """The files behind a path, sorted by name."""
    if "://" in path:
        files = _remote_files(path)
    else:
        files = [(str(p), _Opener(str(p))) for p in local_files(path, base)]
    if not files:
        raise ConfigError(
            explain("no data there", got=path, expected=", ".join(SUFFIXES), remedy="fix the path")
        )
    return files


def local_files(path: str, base: Path | None = None) -> list[Path]:
    """The sorted files behind a local file, folder or glob; `~` is the home folder."""
    place = local_place(path, base)
    if _is_glob(path):
        found = (Path(name) for name in glob.iglob(str(place), recursive=True))
    elif place.is_dir():
        found = place.rglob("*")
    else:
        return [place] if place.is_file() else []
    return sorted(p for p in found if p.is_file() and _readable(p.name))


def local_place(path: str, base: Path | None = None) -> Path:
    """Where a local path of a recipe lies; a relative one starts from `base`."""
    place = Path(path).expanduser()
    return place if base is None else base / place


def _remote_files(path: str) -> list[tuple[str, _Opener]]:
    """The files behind an fsspec URI, with their openers."""
    protocol = path.split("://", 1)[0]
    names, filesystem = remote_files(path)
    return [(f"{protocol}://{name}", _Opener(name, filesystem)) for name in names]


def remote_files(path: str) -> tuple[list[str], Any]:
    """The sorted names of the files behind an fsspec URI, and their file system.

    Raises:
        DataError: the place can not be reached or read, e.g. for lack of credentials.
    """
    import fsspec
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    try:
        # A cached instance would keep the credentials and endpoint of its first use.
        filesystem, root = fsspec.core.url_to_fs(path, skip_instance_cache=True)
        found = filesystem.glob(root) if _is_glob(root) else filesystem.find(root)
    except (OSError, ValueError, ImportError, BotoCoreError) as error:
        raise DataError(explain(f"can not read {path}", got=f"{error}"[:300])) from error
    return sorted(name for name in found if name == root or _readable(name)), filesystem


def _is_glob(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _readable(name: str) -> bool:
    return _format(name) is not None


def _format(name: str) -> str | None:
    """The suffix that says how to read, without that of the compression."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _file_rows(name: str, opener: _Opener, limits: Limits) -> Iterator[Row | Quarantined]:
    kind = _format(name)
    if kind is None:
        raise DataError(explain("unknown kind of file", got=name, expected=", ".join(SUFFIXES)))
    try:
        if kind == ".parquet":
            yield from _parquet_rows(name, opener)
        elif kind == ".zip":
            yield from _zip_rows(name, opener, limits)
        elif kind in (".csv", ".tsv"):
            with _decompressed(name, opener) as stream:
                yield from _csv_rows(name, stream, limits, "\t" if kind == ".tsv" else ",")
        elif kind == ".json" and not _is_lines(name, opener, limits):
            yield from _document_rows(name, opener, limits)
        else:
            with _decompressed(name, opener) as stream:
                yield from _line_rows(name, stream, limits)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(explain("can not open the file", got=str(error))) from error


def _decompressed(name: str, opener: _Opener) -> IO[bytes]:
    stream = opener.open()
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if suffix == ".xz":
        return lzma.LZMAFile(stream)
    if suffix == ".bz2":
        return io.BufferedReader(_Unpacked(bz2.BZ2File(stream)), CHUNK_BYTES)
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(_Unpacked(pa.CompressedInputStream(stream, "zstd")), CHUNK_BYTES)
    return stream


class _Unpacked(io.RawIOBase):
    """A decompressor whose complaint about damaged data is told from a failing disk or network."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer.

        Raises:
            EOFError: the data are damaged.
        """
        try:
            data = self._inner.read(len(buffer))
        except OSError as error:
            if type(error) is OSError and error.errno is None:
                raise EOFError(str(error)) from None
            raise
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file below."""
        if not self.closed:
            self._inner.close()
        super().close()


# -- JSON lines -------------------------------------------------------------------------------


def bounded_lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """(1-based line, bytes) of every line; None in place of a line above `max_bytes`.

    A line above the bound is read on to its end in pieces, so its length costs no memory.
    """
    line = 0
    while piece := stream.readline(max_bytes + 2):
        line += 1
        if len(piece.rstrip(b"\r\n")) <= max_bytes:
            yield line, piece
            continue
        while piece and not piece.endswith(b"\n"):
            piece = stream.readline(CHUNK_BYTES)
        yield line, None


def _line_rows(name: str, stream: IO[bytes], limits: Limits) -> Iterator[Row | Quarantined]:
    index, line = 0, 0
    try:
        for line, piece in bounded_lines(stream, limits.max_row_bytes):
            text = None if piece is None else piece.strip()
            if line == 1 and text is not None:
                text = text.removeprefix(b"\xef\xbb\xbf").strip()
            if text == b"":
                continue
            yield parsed_row(name, line, index, text, limits)
            index += 1
    except CUT_ERRORS as error:
        yield _bad(name, line + 1, index, "truncated_file", str(error))


def parsed_row(
    file: str, line: int, index: int, text: bytes | None, limits: Limits
) -> Row | Quarantined:
    """One JSON text as a row, or the reason why not; None stands for a row above the bound."""
    if text is None:
        return _bad(file, line, index, "too_long", f"more than {limits.max_row_bytes} bytes")
    try:
        return Row(file=file, line=line, index=index, value=_parse_json(text, limits))
    except MalformedRow as error:
        return _bad(file, line, index, str(error.args[0]), str(error.args[1]))


def _parse_json(data: bytes, limits: Limits) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRow("bad_utf8", f"byte {error.start}: {error.reason}") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise MalformedRow("too_deep", f"more than {limits.max_depth} levels") from None
    except MalformedRow:
        raise
    except ValueError as error:
        raise MalformedRow("bad_json", str(error)[:200]) from None
    # Only escapes can bring in NUL or a lone surrogate: raw ones have failed above.
    check_value(value, limits, check_text="\\u" in text)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedRow("duplicate_key", ascii(twice)[:200])
    return value


def check_value(value: Any, limits: Limits, *, check_text: bool = True) -> None:
    """Refuse nesting above the limit, NUL characters and lone surrogates anywhere in a value.

    Raises:
        MalformedRow: too_deep, nul or lone_surrogate.
    """
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if check_text:
                _check_text(item)
        elif isinstance(item, list | dict):
            if depth > limits.max_depth:
                raise MalformedRow("too_deep", f"more than {limits.max_depth} levels")
            if isinstance(item, dict):
                stack.extend((key, depth) for key in item)
                item = item.values()
            stack.extend((child, depth + 1) for child in item)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise MalformedRow("nul", f"character {text.index(chr(0))}")
    if found := _SURROGATE.search(text):
        raise MalformedRow("lone_surrogate", f"character {found.start()}")


def _bad(file: str, line: int, index: int, reason: str, detail: str) -> Quarantined:
    safe = detail.encode("utf-8", "backslashreplace").decode()
    return Quarantined(file=file, line=line, index=index, reason=reason, detail=safe[:300])


# -- JSON documents ---------------------------------------------------------------------------


def _is_lines(name: str, opener: _Opener, limits: Limits) -> bool:
    """Whether a `.json` file is JSON lines in disguise: its first line is a whole object."""
    with _decompressed(name, opener) as stream:
        try:
            head = stream.readline(limits.max_row_bytes)
            rest = stream.read(CHUNK_BYTES)
        except CUT_ERRORS:
            return False
    first = head.removeprefix(b"\xef\xbb\xbf").strip()
    if not (first.startswith(b"{") and first.endswith(b"}") and rest.strip().startswith(b"{")):
        return False
    try:
        _parse_json(first, limits)
    except MalformedRow:
        return False
    return True


def _document_rows(name: str, opener: _Opener, limits: Limits) -> Iterator[Row | Quarantined]:
    index = 0
    with _decompressed(name, opener) as stream:
        for line, text, complete in elements(stream, limits.max_row_bytes):
            if complete:
                yield parsed_row(name, line, index, text, limits)
            else:
                yield _bad(name, line, index, "truncated_file", "the row has no end")
            index += 1
    if index == 0:
        try:
            with _decompressed(name, opener) as stream:
                whole = stream.read(limits.max_row_bytes + 1)
        except CUT_ERRORS as error:
            yield _bad(name, 1, 0, "truncated_file", str(error))
            return
        text = whole.removeprefix(b"\xef\xbb\xbf").strip()
        if text and text not in (b"[]",):
            held = text if len(whole) <= limits.max_row_bytes else None
            yield parsed_row(name, 1, 0, held, limits)


# -- CSV, Parquet, ZIP, hub -------------------------------------------------------------------


def _csv_rows(
    name: str, stream: IO[bytes], limits: Limits, delimiter: str
) -> Iterator[Row | Quarantined]:
    csv.field_size_limit(limits.max_row_bytes)
    lines = _CsvLines(stream, limits)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    index, start = 0, 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None:
                raise DataError(explain("unreadable CSV header", got=f"{name}: {error}")) from error
            yield _bad(name, start, index, "bad_csv", str(error))
            index, start = index + 1, lines.line + 1
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        except CUT_ERRORS as error:
            yield _bad(name, start, index, "truncated_file", str(error))
            break
        if header is None:
            header = _csv_header(name, cells)
        elif cells:
            yield _csv_row(name, start, index, header, cells, limits)
            index += 1
        start = lines.line + 1


def _csv_header(name: str, cells: list[str]) -> list[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice or any(_SURROGATE.search(cell) for cell in cells):
        raise DataError(
            explain("unreadable CSV header", got=f"{name}: {cells}", expected="names, each once")
        )
    return cells


class _CsvLines:
    """Decoded lines for the csv module, which wants text; undecodable bytes become surrogates."""

    def __init__(self, stream: IO[bytes], limits: Limits) -> None:
        self.line = 0
        self._lines = bounded_lines(stream, limits.max_row_bytes)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.line, piece = next(self._lines)
        if piece is None:
            raise csv.Error("the line is too long")
        text = piece.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if self.line == 1 else text


def _csv_row(
    name: str, line: int, index: int, header: list[str], cells: list[str], limits: Limits
) -> Row | Quarantined:
    if len(cells) != len(header):
        return _bad(
            name, line, index, "field_count", f"{len(cells)} cells, the header has {len(header)}"
        )
    value = dict(zip(header, cells, strict=True))
    try:
        check_value(value, limits)
    except MalformedRow as error:
        reason = "bad_utf8" if error.args[0] == "lone_surrogate" else str(error.args[0])
        return _bad(name, line, index, reason, str(error.args[1]))
    return Row(file=name, line=line, index=index, value=value)


def _parquet_rows(name: str, opener: _Opener) -> Iterator[Row | Quarantined]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = 0
    with opener.open() as stream:
        try:
            file = pq.ParquetFile(stream, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(explain("not a Parquet file", got=f"{name}: {error}")) from error
        # `stream` is a Python file: no thread of Arrow may still hold it when the process ends.
        batches = file.iter_batches(batch_size=256, use_threads=False)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                yield _bad(name, index + 1, index, "truncated_file", str(error))
                return
            for offset in range(batch.num_rows):
                yield _parquet_row(name, index, batch.slice(offset, 1))
                index += 1


def _parquet_row(name: str, index: int, one: Any) -> Row | Quarantined:
    try:
        value = one.to_pylist()[0]
        check_value(value, Limits())
    except UnicodeDecodeError as error:
        return _bad(name, index + 1, index, "bad_utf8", str(error))
    except MalformedRow as error:
        return _bad(name, index + 1, index, str(error.args[0]), str(error.args[1]))
    return Row(file=name, line=index + 1, index=index, value=value)


def _zip_rows(name: str, opener: _Opener, limits: Limits) -> Iterator[Row | Quarantined]:
    """Rows of every readable member, e.g. camel-ai's `physics.zip` of one JSON object per file."""
    with opener.open() as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except zipfile.BadZipFile as error:
            raise DataError(explain("not a ZIP archive", got=f"{name}: {error}")) from error
        for member in sorted(archive.namelist()):
            if _format(member) in (None, ".zip", ".parquet"):
                continue
            inner = _ZipOpener(archive, member)
            try:
                yield from _file_rows(f"{name}!{member}", inner, limits)  # type: ignore[arg-type]
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *CUT_ERRORS) as error:
                yield _bad(f"{name}!{member}", 1, 0, "truncated_file", str(error))


@dataclass(frozen=True, slots=True)
class _ZipOpener:
    """Opens one member of an archive, decompressed as a stream."""

    archive: zipfile.ZipFile
    member: str

    def open(self) -> IO[bytes]:
        return self.archive.open(self.member)


class HubPlace(NamedTuple):
    """What `hf:org/name?split=train&config=main&revision=...` says."""

    name: str
    config: str | None
    split: str
    revision: str | None


def hub_place(path: str) -> HubPlace:
    """The parts of a hub path.

    Raises:
        ConfigError: an option that there is not.
    """
    name, _, query = path.removeprefix("hf:").partition("?")
    options: Mapping[str, str] = dict(parse_qsl(query))
    if unknown := set(options) - {"split", "config", "revision"}:
        raise ConfigError(
            explain("unknown hub option", got=sorted(unknown), expected="split, config, revision")
        )
    return HubPlace(
        name=name,
        config=options.get("config"),
        split=options.get("split", "train"),
        revision=options.get("revision"),
    )


def _hub_rows(path: str) -> Iterator[Row | Quarantined]:
    """Rows of a hub data set, streamed through `datasets`; from its local cache without a hub."""
    import datasets

    place = hub_place(path)
    try:
        builder = datasets.load_dataset_builder(place.name, place.config, revision=place.revision)
        _require_revision(place, builder.hash)
        for index, value in enumerate(builder.as_streaming_dataset(split=place.split)):
            try:
                check_value(value, Limits())
            except MalformedRow as error:
                yield _bad(path, index + 1, index, str(error.args[0]), str(error.args[1]))
                continue
            yield Row(file=path, line=index + 1, index=index, value=value)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            explain("can not read the hub data set", got=f"{path}: {error}"[:400])
        ) from error


def _require_revision(place: HubPlace, found: str | None) -> None:
    """Refuse the cached version that `datasets` falls back to where it is not the one asked for.

    Raises:
        DataError: a whole commit was asked for and another one would be read.
    """
    commits = [one for one in (place.revision, found) if one and _COMMIT.fullmatch(one)]
    if len(commits) == 2 and commits[0] != commits[1]:
        raise DataError(
            explain(
                f"the local cache holds another version of {place.name!r}",
                got=commits[1],
                expected=commits[0],
                remedy="connect to the hub, or name the cached commit as revision",
            )
        )
