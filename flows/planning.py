"""`still plan`: the flow walked without running, as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.still_2 import still_2
from still_core.errors import ConfigError
from still_core.recipes.recipe import Resources, Still2Recipe
from still_core.train.memory import plan_memory
from still_core.train.model_folder import read_config
from still_core.train.recipe import DpoRecipe, SftRecipe
from tasks.planning import PlannedStage, planning
from tasks.preflight import preflight

SHARE_OF_LONGEST = 4
"""A row or response is assumed to have the longest length divided by this, on average: the data is
not there yet. Ours."""
TOKENS_PER_GPU_S = 1_000
"""Drawn by one GPU of an engine, assumed for 32B on an H100. Ours, measured nowhere."""
RATED = 1_000
"""Problems that the cost of rating is given for: how many there are is known once they are read."""


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
        *cost_lines(recipe, resources),
    ]
    return "\n".join(lines) + "\n"


def _line(stage: PlannedStage) -> str:
    mark = "cached  " if stage.cached else "will run"
    reads = f"  <- {', '.join(dict.fromkeys(stage.reads))}" if stage.reads else ""
    return f"  {mark}  {stage.name}{reads}"


def cost_lines(recipe: Still2Recipe, resources: Resources) -> list[str]:
    """Memory per rank and GPU-hours of one SFT, of one DPO where the recipe has it, of rating the
    pool where it does, and of one round's exploration, each with what it assumes."""
    by_pairs = recipe.self_improve.method == "dpo"
    lines = _job_lines(
        "SFT",
        recipe,
        recipe.sft,
        resources,
        recipe.mix.target_size,
        "demonstrations (mix.target_size)",
    )
    if by_pairs:
        pairs = recipe.pool.problems_per_round * recipe.self_improve.pairs.max_pairs_per_problem
        lines += _job_lines(
            "DPO",
            recipe,
            recipe.self_improve.dpo,
            resources,
            pairs,
            "pairs (all that pool.problems_per_round problems may give)",
        )
    again = 0 if by_pairs else recipe.rounds
    writer = ", and one of the solution writer" if recipe.distil.complete_solutions else ""
    lines.append(f"  {again + 1} x SFT of a round in the run{writer}")
    if by_pairs:
        lines.append(f"  {recipe.rounds} x DPO in the run")
    if recipe.rounds and recipe.pool.difficulty.attempts:
        lines += _rating_lines(recipe, resources)
    if recipe.rounds:
        lines += _exploration_lines(recipe, resources)
    return [*lines, "not in these hours: teachers, scoring, evaluation"]


def _rating_lines(recipe: Still2Recipe, resources: Resources) -> list[str]:
    """What every problem of the pool costs before the first round."""
    attempts = recipe.pool.difficulty.attempts
    cost, assumed = _rollout_cost(recipe, resources, RATED * attempts)
    return [
        f"rating the pool, {RATED:,} problems x {attempts} attempts: {cost}",
        f"  assumes {assumed}; again for every further {RATED:,} problems of pool.buckets",
    ]


def _exploration_lines(recipe: Still2Recipe, resources: Resources) -> list[str]:
    """The dearest that one round's exploration can be."""
    problems, attempts = recipe.pool.problems_per_round, recipe.explore.max_attempts
    cost, assumed = _rollout_cost(recipe, resources, problems * attempts)
    return [
        f"one exploration, {problems:,} problems x {attempts} attempts: at most {cost}",
        f"  assumes {assumed}, no problem solved before its last attempt",
        f"  {recipe.rounds} x in the run",
    ]


def _rollout_cost(recipe: Still2Recipe, resources: Resources, num_rollouts: int) -> tuple[str, str]:
    """Tokens, with GPU-hours where rollouts have GPUs, and what both assume."""
    mean_tokens = recipe.explore.sampling.max_tokens // SHARE_OF_LONGEST
    tokens = num_rollouts * mean_tokens
    cost = f"{tokens / 1e6:,.1f} million tokens"
    assumed = f"{mean_tokens:,} tokens per response on average (max_tokens / {SHARE_OF_LONGEST})"
    if resources.rollout.gpus_per_actor:
        cost += f", {tokens / TOKENS_PER_GPU_S / 3600:,.0f} GPU-hours"
        assumed += f", {TOKENS_PER_GPU_S:,} tokens/s per GPU"
    return cost, assumed


def _job_lines(
    kind: str,
    recipe: Still2Recipe,
    job: SftRecipe | DpoRecipe,
    resources: Resources,
    num_rows: int,
    rows: str,
) -> list[str]:
    """One training job on `num_rows` (0: not known) of what `rows` says; an architecture without a
    plan is said so."""
    mean_tokens = job.max_length // SHARE_OF_LONGEST
    try:
        plan = plan_memory(
            _model_config(recipe.backbone.model),
            job,
            resources.train,
            num_rows=num_rows or None,
            mean_tokens=mean_tokens,
        )
    except ConfigError as error:
        return [f"no memory plan: {error}"]
    parts = ", ".join(f"{row['part']} {row['gib']}" for row in plan.to_rows())
    return [
        f"one {kind}, rows up to {job.max_length} tokens: {plan.sentence()}",
        f"  GiB: {parts}",
        f"  assumes {num_rows:,} {rows}, {mean_tokens:,} tokens each on average "
        f"(max_length / {SHARE_OF_LONGEST}), {job.epochs} epochs"
        if num_rows
        else "  no GPU-hours: mix.target_size 0 leaves the number of rows open",
    ]


def _model_config(model: str) -> Mapping[str, Any] | str:
    if model == "miniature":
        from still_core.miniature import backbone_directory

        model = str(backbone_directory())
    folder = Path(model).expanduser()
    return read_config(folder) if (folder / "config.json").is_file() else model
