"""Before any work: what can be known to be wrong, and what a run is identified by."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from still_core.errors import ConfigError
from still_core.miniature import backbone_directory
from still_core.recipes.loading import load_recipe, load_resources
from still_core.recipes.recipe import Resources
from tasks.planning import planning
from tasks.preflight import preflight


def test_the_miniature_has_nothing_to_mend(tmp_path: Path) -> None:
    assert preflight(load_recipe("miniature"), str(tmp_path), Resources()).faults == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("backbone.prompt=nope", "backbone.prompt: unknown prompt: got 'nope', expected bare,"),
        ("problems.sources.0.adapter=nope", "unknown source adapter: got 'nope', expected aime,"),
        ("problems.sources.0.path=a.jsonl", "miniature is no adapter of files"),
        ('clean.keep_outcomes=["corect"]', "clean.keep_outcomes.0: Input should be 'correct'"),
        ('problems.filters.drop_question_types=["prooof"]', "(got 'prooof')"),
        ("distil.teachers.0.style=qwk", "distil.teachers.0.style: Input should be 'auto'"),
        ('mix.weights={"hard_maths": 1.0}', "weights name no bucket: got ['hard_maths']"),
        (
            'distil.teachers=[{"name": "t", "kind": "local"}]',
            "teacher 't' of kind local names no model",
        ),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_the_recipe(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_recipe("miniature", [change])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rollout.tensor_parallel=4", "got 'gpus_per_actor=0', expected tensor_parallel=4 or more"),
        ("rollout.endpoint=host:8000", "rollout.endpoint"),
    ],
)
def test_resources_that_can_not_work_are_refused_with_the_recipe(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_resources("miniature", [change])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["distil.teachers.0.kind=endpoint"], "teacher 'separate' needs an endpoint"),
        (["distil.teachers.0.source=oracle"], "unknown scripted teacher"),
        (
            ["explore.sampling.max_tokens=100000"],
            "explore.sampling.max_tokens does not fit into engine.max_model_len=384: got 100000, "
            "expected at most 383",
        ),
        (["evaluate.sampling.max_tokens=384"], "evaluate.sampling.max_tokens does not fit"),
        (
            ["distil.teachers.0.kind=local", "distil.teachers.0.source=miniature"],
            "distil.max_tokens does not fit",
        ),
        (["engine.max_model_len=1024"], "got 1024, expected at most 512 (max_position_embeddings)"),
        (["sft.max_length=513"], "sft.max_length is beyond the positions of the model"),
        (
            ["self_improve.method=dpo", "self_improve.dpo.max_length=513"],
            "self_improve.dpo.max_length is beyond the positions of the model",
        ),
        (
            [
                'problems.benchmarks=[{"name": "b", "source": '
                '{"name": "b", "adapter": "any", "path": "no.jsonl"}}]'
            ],
            "no data there: got 'no.jsonl'",
        ),
    ],
)
def test_what_can_not_work_is_refused_in_one_line_before_any_work(
    changes: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        preflight(load_recipe("miniature", changes), str(tmp_path), Resources())
    assert "\n" not in str(refused.value)


def test_an_endpoint_is_refused_as_the_engine_of_models_that_a_run_trains(tmp_path: Path) -> None:
    recipe = load_recipe("miniature", ["engine.kind=openai", "engine.model=gpt-x"])
    resources = load_resources("miniature", ["rollout.endpoint=http://127.0.0.1:9/v1"])
    with pytest.raises(ConfigError, match="can not load the weights of a model") as refused:
        preflight(recipe, str(tmp_path), resources)
    assert str(refused.value).endswith(
        "an endpoint can be a teacher: distil.teachers[].kind=endpoint"
    )


def test_rows_are_held_against_the_positions_only_where_they_are_trained_on(
    tmp_path: Path,
) -> None:
    at_the_limit = ["sft.max_length=512", "self_improve.dpo.max_length=513"]
    assert preflight(load_recipe("miniature", at_the_limit), str(tmp_path), Resources())


def test_a_prompt_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    # The miniature's tokens are letters.
    with pytest.raises(ConfigError, match=r"as the prompt takes 1[0-9]{3} tokens or more"):
        preflight(load_recipe("miniature", ["backbone.prompt=still-2"]), str(tmp_path), Resources())


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    recipe = load_recipe("miniature", ["engine.kind=openai", "distil.teachers.0.kind=endpoint"])
    line = (
        r"2 things to mend before the run: \(1\) engine.kind=openai .*; \(2\) teacher 'separate' "
    )
    with pytest.raises(ConfigError, match=line):
        preflight(recipe, str(tmp_path), Resources())
    with planning():
        assert len(preflight(recipe, str(tmp_path), Resources()).faults) == 2


def test_a_report_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for reports in ("taken", "taken/reports"):
        with pytest.raises(ConfigError, match="can not be written"):
            preflight(
                load_recipe("miniature"), str(tmp_path / "s"), Resources(), str(tmp_path / reports)
            )


def test_a_tokenizer_without_template_or_that_loses_the_thoughts_marks_is_refused(
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(backbone_directory(), tmp_path / "model"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    recipe = load_recipe("miniature", [f"backbone.model={folder}"])
    with pytest.raises(ConfigError, match="does not give the thought back"):
        preflight(recipe, str(tmp_path / "store"), Resources())
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="prompt 'bare' needs a chat template"):
        preflight(recipe, str(tmp_path / "store"), Resources())
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="can not be read"):
        preflight(recipe, str(tmp_path / "store"), Resources())


def test_a_local_teachers_weights_are_part_of_what_a_run_reads(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(backbone_directory(), tmp_path / "teacher"))
    teacher = [f"distil.teachers.0.{change}" for change in ("kind=local", f"source={folder}")]
    recipe = load_recipe("miniature", [*teacher, "distil.max_tokens=160"])

    def read_now() -> dict[str, dict[str, str]]:
        return preflight(recipe, str(tmp_path / "store"), Resources()).teachers

    before = read_now()
    assert set(before) == {str(folder)}
    (folder / "generation_config.json").write_text("{}")
    changed = read_now()[str(folder)].items() - before[str(folder)].items()
    assert {name for name, _ in changed} == {"generation_config.json"}
