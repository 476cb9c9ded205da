"""`still plan`: the flow walked without running, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.still_2 import still_2
from still_core.errors import ConfigError
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.train.memory import plan_memory
from still_core.train.recipe import DpoRecipe, SftRecipe
from tasks.planning import PlannedStage, planning
from tasks.preflight import preflight


def plan_still_2(recipe: Still2Recipe, store: str, resources: Resources) -> str:
    """The DAG with what is cached and what will run, what is missing, memory and GPU-hours."""
    with planning() as stages:
        faults = preflight(recipe, store, resources).faults
        still_2.fn(recipe, store, "reports", resources)
    cached = sum(stage.cached for stage in stages)
    lines = [
        f"recipe {recipe.name}, run {recipe.run_name()}, store {store}",
        "",
        *(_line(stage) for stage in stages),
        "",
        f"{len(stages)} stages: {cached} cached, {len(stages) - cached} to run",
        *(f"to mend before the run: {fault}" for fault in faults),
        "",
        *_training_lines(recipe, resources),
    ]
    return "\n".join(lines) + "\n"


def _line(stage: PlannedStage) -> str:
    mark = "cached  " if stage.cached else "will run"
    reads = f"  <- {', '.join(dict.fromkeys(stage.reads))}" if stage.reads else ""
    return f"  {mark}  {stage.name}{reads}"


def _training_lines(recipe: Still2Recipe, resources: Resources) -> list[str]:
    """Memory per rank by part and hours for one SFT, and for one DPO where the recipe has it."""
    by_pairs = recipe.self_improve.method == "dpo"
    lines = _job_lines("SFT", recipe, recipe.sft, resources, recipe.mix.target_size)
    if by_pairs:
        pairs = recipe.pool.problems_per_round * recipe.self_improve.pairs.max_pairs_per_problem
        lines += _job_lines("DPO", recipe, recipe.self_improve.dpo, resources, pairs)
    again = 0 if by_pairs else recipe.rounds
    lines.append(f"  {again + 1} x SFT of a round in the run, and one of the solution writer")
    if by_pairs:
        lines.append(f"  {recipe.rounds} x DPO in the run")
    return lines


def _job_lines(
    kind: str,
    recipe: Still2Recipe,
    job: SftRecipe | DpoRecipe,
    resources: Resources,
    num_rows: int,
) -> list[str]:
    """One training job; an architecture without a plan is said so."""
    try:
        plan = plan_memory(
            _model_config(recipe.backbone.model),
            job,
            resources.train,
            num_rows=num_rows or None,
            mean_tokens=job.max_length // 4,
        )
    except ConfigError as error:
        return [f"no memory plan: {error}"]
    parts = ", ".join(f"{row['part']} {row['gib']}" for row in plan.to_rows())
    return [
        f"one {kind}, rows up to {job.max_length} tokens: {plan.sentence()}",
        f"  GiB: {parts}",
    ]


def _model_config(model: str) -> Mapping[str, Any] | str:
    if model == "miniature":
        from still_core.miniature import backbone_directory

        model = str(backbone_directory())
    config = Path(model).expanduser() / "config.json"
    if config.is_file():
        fields: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        return fields
    return model
