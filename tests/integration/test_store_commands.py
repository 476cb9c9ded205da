"""`still store`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli import build_app, main
from still_core.store import Handle, Store


def still(*words: str) -> None:
    build_app()(["store", *words], result_action="return_value")


def checkpoint(store: Store, job: str, version: str, step: int) -> Handle:
    """A whole checkpoint of one part, as a training job publishes it."""
    name = f"{job}/checkpoints/{version}"
    saved = {"shard.bin": f"{job} {version} {step}".encode() * 1_000}
    store.publish(f"{name}/parts/rank-0-of-1", f"step-{step:08d}-a", saved, meta={})
    return store.publish(
        name, f"step-{step:08d}-a", {"index.json": f"{job} {step}".encode()}, meta={"step": step}
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A published model, a checkpoint that its job left behind, and a job that still trains."""
    store = Store(tmp_path / "store")
    store.publish("train-model", "v1", {"model.safetensors": b"weights"}, meta={})
    checkpoint(store, "train-model", "v1", 10)
    checkpoint(store, "train-model", "v2", 20)
    return store


def test_ls_shows_sizes_and_takes_a_prefix(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    still("ls", "--store", store.root)
    assert len(capsys.readouterr().out.splitlines()) == 5
    still("ls", "train-model/checkpoints/v2", "--store", store.root)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "0.02 MiB" in lines[-1]


def test_the_store_of_the_environment_is_the_default(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILL_STORE", store.root)
    still("ls", "train-model/checkpoints/v2")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_gc_names_what_it_would_remove_and_removes_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = store.list()
    still("gc", "--store", store.root, "--min-age-hours", "0")
    printed = capsys.readouterr()
    assert "would remove manifests/train-model/checkpoints/v1/" in printed.out
    assert "2 versions, 2 files" in printed.out
    assert "add --yes" in printed.err
    assert store.list() == before


def test_gc_takes_the_checkpoints_of_published_models_and_no_others(store: Store) -> None:
    still("gc", "--store", store.root, "--yes", "--idle", "--min-age-hours", "0")
    names = {handle.name for handle in store.list()}
    assert names == {
        "train-model",
        "train-model/checkpoints/v2",
        "train-model/checkpoints/v2/parts/rank-0-of-1",
    }
    for handle in store.list():
        store.fetch(handle)


def test_gc_spares_what_is_young(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    still("gc", "--store", store.root, "--yes")
    assert "0 versions, 0 files" in capsys.readouterr().out


def test_what_is_published_while_gc_looks_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Store.list

    def list_then_publish(self: Store, name_prefix: str = "") -> list[Handle]:
        found = listed(self, name_prefix)
        Store(self.root).publish("train-model", "late", {"w": b"weights"}, meta={})
        return found

    monkeypatch.setattr(Store, "list", list_then_publish)
    still("gc", "--store", store.root, "--yes")
    late = store.find("train-model", "late")
    assert late is not None
    assert store.exists(late)


# The words come from sys.argv, as for a user.
@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
@pytest.mark.parametrize("words", [["--min-age-hours", "-1"], ["--yes", "--min-age-hours", "1"]])
def test_an_age_at_which_a_writer_could_lose_files_is_one_line(
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["still", "store", "gc", "--store", store.root, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--min-age-hours" in capsys.readouterr().err
