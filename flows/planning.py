"""`still plan`: the flow walked without running, as text."""

from __future__ import annotations

from flows.still_2 import still_2
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.train.memory import plan_text
from tasks.planning import PlannedStage, planning
from tasks.preflight import preflight


def plan_still_2(recipe: Still2Recipe, store: str, resources: Resources) -> str:
    """The DAG with what is cached and what will run, what is missing, memory per GPU and GPU-hours."""
    with planning() as stages:
        faults = preflight(recipe, store, resources).faults
        still_2.fn(recipe, store, "reports", resources)
    lines = [f"recipe {recipe.name}, run {recipe.run_name()}, store {store}", ""]
    lines += [_line(stage) for stage in stages]
    cached = sum(stage.cached for stage in stages)
    lines += ["", f"{len(stages)} stages: {cached} cached, {len(stages) - cached} to run"]
    lines += [f"missing: {fault}" for fault in faults]
    return "\n".join(lines) + "\n\n" + plan_text(recipe.backbone.model, recipe.sft, resources.train)


def _line(stage: PlannedStage) -> str:
    mark = "cached  " if stage.cached else "will run"
    reads = f"  <- {', '.join(dict.fromkeys(stage.reads))}" if stage.reads else ""
    return f"  {mark}  {stage.name}{reads}"
