"""Real problems, real benchmarks, real long thoughts: the same flow by recipe alone, shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from still_core.distil.dataset import read_demonstrations
from still_core.recipes.loading import load_recipe
from still_core.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prefect_server")]

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "problems.sources.0.limit=40",
    "problems.sources.1.limit=40",
    "problems.sources.2.limit=40",
    "problems.sources.3.limit=40",
    "problems.benchmarks.0.source.limit=6",
    "problems.benchmarks.1.source.limit=4",
    "pool.problems_per_round=2",
    "explore.max_attempts=2",
    "explore.sampling.max_tokens=96",
    "evaluate.sampling.max_tokens=96",
    "sft.batch_size=8",
    "sft.max_length=4096",
    "distil.complete_solutions=false",
]


def test_real_thoughts_go_all_the_way_to_a_complete_report(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.still_2 import still_2
    from still_core.train.small_model import make_small_model

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".still").mkdir()
    (tmp_path / ".still" / "data").symlink_to(shared_data)
    texts = [shared_data / f"model_outputs_thinking_{name}.jsonl" for name in ("gsm8k", "math500")]
    model = make_small_model(texts, tmp_path / "model", vocabulary=1024, hidden=64)
    tree = yaml.safe_load((ROOT / "deployments" / "recipes" / "real-input.yaml").read_text("utf-8"))
    tree["backbone"]["model"] = str(model)
    file = tmp_path / "real.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    recipe = load_recipe(str(file), SHORT)

    page = Path(still_2(recipe, store=str(tmp_path / "store"), reports=str(tmp_path / "reports")))

    report = json.loads((page.parent / "report.json").read_text("utf-8"))
    assert [row["method"] for row in report["rows"]] == ["Backbone", "SFT", "SFT"]
    assert set(report["rows"][0]["benchmarks"]) == {"math-oai-normal", "aime24-hard"}
    store = Store(str(tmp_path / "store"))
    (d0,) = store.list("build-d0")
    rows = read_demonstrations(store, d0)
    assert len(rows) >= 10
    assert max(len(row.thought) for row in rows) > 2000
    assert any("\\frac" in row.thought or "\\boxed" in row.solution for row in rows)
