"""The same problems from a folder, from S3 and through `datasets`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from still_core.errors import ConfigError, DataError
from still_core.problems.collect import collect
from still_core.problems.places import pinned, remote_identity
from still_core.problems.recipe import ProblemsRecipe, SourceSpec
from tasks.preflight import fingerprint_sources

pytestmark = pytest.mark.integration


def test_rows_from_s3_equal_local_rows(s3_root: str, shared_data: Path) -> None:
    import fsspec

    names = ["AIME24.jsonl", "e2p_aime8.parquet", "HumanEval.jsonl.gz", "gaokao_Physics_MCQs.json"]
    adapters = ["aime24", "verl", "humaneval", "gaokao"]
    filesystem = fsspec.filesystem("s3")
    root = f"{s3_root}/problems"
    for name in names:
        filesystem.pipe_file(f"{root}/{name}", (shared_data / name).read_bytes())
    for name, adapter in zip(names, adapters, strict=True):
        there = SourceSpec(name="s", adapter=adapter, path=f"{root}/{name}")
        here = SourceSpec(name="s", adapter=adapter, path=str(shared_data / name))
        assert collect([there]).problems == collect([here]).problems
        assert collect([there]).counts == collect([here]).counts


def test_rows_through_datasets_equal_local_rows(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder with a data file is what a hub name resolves to; no network is needed.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes((shared_data / "gsm8k_train.jsonl").read_bytes())
    there = collect([SourceSpec(name="s", adapter="gsm8k", path=f"hf:{folder}?split=train")])
    here = collect(
        [SourceSpec(name="s", adapter="gsm8k", path=str(shared_data / "gsm8k_train.jsonl"))]
    )
    assert [(p.id, p.statement, p.gold) for p in there.problems] == [
        (p.id, p.statement, p.gold) for p in here.problems
    ]


def test_a_changed_object_is_another_source(s3_root: str, tmp_path: Path) -> None:
    import fsspec

    filesystem = fsspec.filesystem("s3")
    folder = f"{s3_root}/rows"
    filesystem.pipe_file(f"{folder}/a.jsonl", b'{"problem": "1+1", "answer": "2"}\n')
    spec = SourceSpec(name="s", adapter="any", path=folder)
    first = fingerprint_sources([spec])
    assert fingerprint_sources([spec]) == first
    # Of the same length, so that the tag alone tells.
    filesystem.pipe_file(f"{folder}/a.jsonl", b'{"problem": "1+2", "answer": "3"}\n')
    second = fingerprint_sources([spec])
    assert second != first
    filesystem.pipe_file(f"{folder}/b.jsonl", b'{"problem": "2+2", "answer": "4"}\n')
    third = fingerprint_sources([spec])
    assert third not in (first, second)
    filesystem.pipe_file(f"{folder}/notes.txt", b"no data")
    assert fingerprint_sources([spec]) == third
    with pytest.raises(ConfigError, match="no data there"):
        fingerprint_sources([SourceSpec(name="s", adapter="any", path=f"{s3_root}/nothing")])


COMMITS = {"main": "a" * 40, "v2": "b" * 40}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A hub that knows one data set; the commits of its revisions can be changed."""
    commits = dict(COMMITS)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, revision = self.path.partition("/revision/")
            known = self.path.startswith("/api/datasets/org/sums")
            sha = commits.get(revision or "main") if known else None
            data = json.dumps({"id": "org/sums", "sha": sha} if sha else {"error": "no"}).encode()
            self.send_response(200 if sha else 404)
            if not known:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield commits
    server.shutdown()


def test_a_hub_name_stands_for_the_commit_of_its_revision(hub: dict[str, str]) -> None:
    path = "hf:org/sums?split=train"
    assert remote_identity(path) == f"commit {COMMITS['main']}"
    assert remote_identity(f"{path}&revision=v2") == f"commit {COMMITS['v2']}"
    hub["main"] = "c" * 40
    files = {path: remote_identity(path)}
    assert files == {path: f"commit {'c' * 40}"}
    # What is read is what was named, whatever is pushed meanwhile.
    recipe = ProblemsRecipe(sources=(SourceSpec(name="s", adapter="any", path=path),))
    (spec,) = pinned(recipe, files).sources
    assert spec.path == f"{path}&revision={'c' * 40}"
    for missing in ("hf:org/sums?revision=v9", "hf:org/other"):
        with pytest.raises(ConfigError, match="the hub has no data set"):
            remote_identity(missing)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine without a hub whose cache of `datasets` holds one version; gives its commit."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "d" * 40
    folder = tmp_path / "org___big_sums" / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    features = datasets.Features({"problem": datasets.Value("string")})
    with ArrowWriter(features=features, path=str(folder / "big_sums-train.arrow")) as writer:
        writer.write({"problem": "What is 1+1?"})
        count, size = writer.finalize()
    split = {"name": "train", "num_bytes": size, "num_examples": count, "dataset_name": "big_sums"}
    datasets.DatasetInfo(
        features=features,
        builder_name="json",
        dataset_name="big_sums",
        config_name="default",
        version="0.0.0",
        splits={"train": split},
    ).write_to_directory(str(folder))
    return commit


def test_without_a_hub_the_cached_version_is_named_and_read(cached: str) -> None:
    path = "hf:org/BigSums?split=train"
    identity = remote_identity(path)
    assert identity == f"commit {cached}"
    spec = SourceSpec(name="s", adapter="any", path=path)
    (read,) = pinned(ProblemsRecipe(sources=(spec,)), {path: identity}).sources
    assert [p.statement for p in collect([read]).problems] == ["What is 1+1?"]
    # A whole commit needs no hub for its name; another version is not read in its place.
    other = f"{path}&revision={'e' * 40}"
    assert remote_identity(other) == f"commit {'e' * 40}"
    with pytest.raises(DataError, match="another version"):
        collect([SourceSpec(name="s", adapter="any", path=other)])
    with pytest.raises(ConfigError, match="the local cache has no 'org/unknown'"):
        remote_identity("hf:org/unknown")
