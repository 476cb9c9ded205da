"""The same problems from a folder, from S3 and through `datasets`."""

from __future__ import annotations

from pathlib import Path

import pytest

from still_core.problems.collect import collect
from still_core.problems.recipe import SourceSpec

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
