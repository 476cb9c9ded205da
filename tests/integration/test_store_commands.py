"""`still store`, as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments.cli import build_app, main
from still_core.errors import CorruptionError
from still_core.evaluate.answers import EvaluatedAnswer
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


def evaluation(model: Handle, store: Store, *, correct: int) -> None:
    """Ten answers of a model, as the stage publishes them."""
    answers = [
        EvaluatedAnswer(
            benchmark="b",
            level="normal",
            problem_id=str(number),
            domain="mathematics",
            difficulty=None,
            sample_index=0,
            outcome="correct" if number < correct else "wrong",
            extracted=None,
            truncated=False,
            thought_tokens=0,
        ).to_row()
        for number in range(10)
    ]
    version = f"{model.version}-{correct}"
    store.publish_table("evaluate-model", version, answers, meta={"parents": [model.digest]})


def test_retain_keeps_the_best_by_evaluation_the_newest_and_what_was_not_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    models = {
        name: store.publish("train-model", name, {"model.safetensors": name.encode()}, meta={})
        for name in ("weak", "best", "unknown", "middle", "newest")
    }
    for name, correct in {"weak": 9, "best": 8, "middle": 5, "newest": 1}.items():
        evaluation(models[name], store, correct=correct)
    evaluation(models["weak"], store, correct=2)  # its newer evaluation counts

    words = ["retain", "train-model", "--best", "1", "--store", store.root]
    still(*words)
    printed = capsys.readouterr()
    assert "keep            80.0%  train-model@best" in printed.out
    assert "forget          20.0%  train-model@weak" in printed.out
    assert "keep    not evaluated  train-model@unknown" in printed.out
    assert "add --yes" in printed.err
    assert len(store.versions("train-model")) == 5

    still(*words, "--yes")
    assert store.versions("train-model") == ["best", "newest", "unknown"]


def test_retain_takes_an_evaluation_without_answers_for_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    model = store.publish("train-model", "only", {"model.safetensors": b"w"}, meta={})
    store.publish_table("evaluate-model", "empty", [], meta={"parents": [model.digest]})
    still("retain", "train-model", "--best", "1", "--store", store.root)
    assert "keep    not evaluated  train-model@only" in capsys.readouterr().out


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


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
@pytest.mark.parametrize(
    "words",
    [
        "store ls",
        "store gc",
        "store gc --yes",
        "store quarantine --yes",
        "bank ls",
        "bank show x",
        "bank stats",
        "bank export x.jsonl",
        "bank gc --yes",
        "bank regrade",
        "lineage x",
        "watch --once",
    ],
)
def test_a_mistyped_store_is_one_line_and_nothing_is_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["still", *words.split(), "--store", "stoer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no store there: got 'stoer', expected an existing folder" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_gc_that_only_names_makes_no_file(store: Store) -> None:
    shutil.rmtree(Path(store.root) / ".staging")
    before = sorted(Path(store.root).rglob("*"))
    still("gc", "--store", store.root)
    assert sorted(Path(store.root).rglob("*")) == before


@pytest.fixture
def damaged(store: Store) -> Path:
    """The manifest of version v0, which a bad disk cut short."""
    store.publish("train-model", "v0", {"model.safetensors": b"first"}, meta={})
    path = Path(store.root) / "manifests/train-model/v0.json"
    text = path.read_text()
    path.unlink()
    path.write_text(text[: len(text) // 2])
    return path


def test_a_damaged_manifest_is_named_with_the_remedy_and_the_others_are_listed(
    store: Store, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still("ls", "--store", store.root)
    printed = capsys.readouterr()
    assert "train-model@v1" in printed.out
    (said,) = printed.err.splitlines()
    assert said.startswith("damaged: manifests/train-model/v0.json is not readable JSON")
    assert said.endswith("`still store quarantine --yes` sets it aside")


def test_lineage_goes_on_without_a_damaged_manifest_and_says_so_once(
    store: Store,
    damaged: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    build_app()(["lineage", "train-model@v1", "--store", store.root], result_action="return_value")
    assert "train-model@v1" in capsys.readouterr().out
    (said,) = (one.getMessage() for one in caplog.records if one.name.startswith("still_core"))
    assert said.startswith("left out: manifests/train-model/v0.json")


def test_gc_removes_nothing_while_a_manifest_is_damaged(store: Store, damaged: Path) -> None:
    before = sorted(Path(store.root).rglob("*"))
    for words in ([], ["--yes", "--idle", "--min-age-hours", "0"]):
        with pytest.raises(CorruptionError, match=r"train-model/v0\.json.*still store quarantine"):
            still("gc", "--store", store.root, *words)
    assert sorted(Path(store.root).rglob("*")) == before


def test_a_damaged_manifest_is_set_aside_and_its_version_can_be_published_anew(
    store: Store, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bytes_of_it = damaged.read_bytes()
    still("quarantine", "--store", store.root)
    assert "add --yes" in capsys.readouterr().err
    assert damaged.exists()
    still("quarantine", "--store", store.root, "--yes")
    assert capsys.readouterr().out == "set aside manifests/train-model/v0.json\n"
    (aside,) = (Path(store.root) / "manifests-damaged/train-model").iterdir()
    assert aside.read_bytes() == bytes_of_it
    assert store.survey().damaged == {}
    handle = store.publish("train-model", "v0", {"model.safetensors": b"again"}, meta={})
    assert store.read_bytes(handle, "model.safetensors") == b"again"
    still("quarantine", "--store", store.root, "--yes")
    assert capsys.readouterr().out == "no manifest is damaged\n"
    still("gc", "--store", store.root)


def test_a_whole_manifest_is_not_set_aside(store: Store) -> None:
    assert not store.quarantine("manifests/train-model/v1.json")
    assert store.find("train-model", "v1") is not None


@pytest.mark.integration
def test_a_damaged_manifest_on_s3_is_set_aside(s3_root: str, tmp_path: Path) -> None:
    store = Store(s3_root, cache=tmp_path)
    store.publish("model", "1", {"w": b"weights"})
    store.backend.put("manifests/model/1.json", b"{")
    assert list(store.survey().damaged) == ["manifests/model/1.json"]
    assert store.quarantine("manifests/model/1.json")
    assert store.survey() == ([], {})
    assert [stat.size for stat in store.backend.scan("manifests-damaged/")] == [1]
