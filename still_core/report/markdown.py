"""report.md, and its sections one by one for whoever shows them elsewhere (artifacts of a task)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from still_core.evaluate.answers import DifficultyRate
from still_core.report.data import (
    BenchmarkOverlap,
    Claim,
    Curve,
    ExploreRound,
    FunnelTable,
    ReportData,
    SampleRollout,
    StageTime,
    UnsolvedProblem,
)
from still_core.report.table import difficulty_grid, markdown_table
from still_core.report.text import (
    cell,
    duration,
    fenced,
    lucky_text,
    percent,
    table,
    visible,
)

MAX_UNSOLVED_SHOWN = 30
"""Unsolved problems listed in the Markdown and HTML pages; report.json has all."""
SHOWN = {True: "shown", False: "NOT shown", None: "not measured"}
OVERLAP_HEADS = (
    "Benchmark",
    "Its problems",
    "Training problems",
    "Overlapping, removed",
    "Overlapping, left in training",
)
DIFFICULTY_READING = "Accuracy in %, its 95 % interval, and in brackets the mean thought tokens."
_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def render_markdown(data: ReportData) -> str:
    """The whole report as Markdown; sections without data are left out."""
    sections = [
        ("Accuracy", accuracy_markdown(data)),
        ("The paper's claims", claims_markdown(data.claims)),
        ("Exploration", explorations_markdown(data.explorations)),
        ("By difficulty", difficulty_markdown(data.difficulty_rates)),
        ("Refinement", "\n\n".join(funnel_markdown(each) for each in data.funnels)),
        ("Decontamination", overlaps_markdown(data.overlaps)),
        ("Training", curves_markdown(data.curves)),
        ("Unsolved problems", unsolved_markdown(data.unsolved)),
        ("Rollouts to read", samples_markdown(data.samples)),
        ("Time by stage", stages_markdown(data.stages)),
        ("Notes", "\n".join(f"- {visible(note)}" for note in data.notes)),
        ("Recipe", fenced(json.dumps(data.recipe, indent=2, sort_keys=True), limit=100_000)),
    ]
    head = f"# {cell(data.run)}\n\nRecipe `{data.recipe_name}`."
    return "\n\n".join([head, *(f"## {name}\n\n{body}" for name, body in sections if body)]) + "\n"


def accuracy_markdown(data: ReportData) -> str:
    """Table 2 and how to read it."""
    return (
        f"{markdown_table(data)}\n\n"
        "Per benchmark: accuracy in % with its 95 % Wilson interval, gain relative to the backbone "
        "(first row; in points where it solves nothing), and the exact two-sided paired test "
        "against the row above. Lucky: right answers after a wrong thought."
    )


def claims_markdown(claims: Sequence[Claim]) -> str:
    """Each claim, whether this run shows it, and the figures."""
    return "\n".join(
        f"- **{SHOWN[claim.shown]}**: {claim.text} {cell(claim.evidence, 600)}" for claim in claims
    )


def explorations_markdown(explorations: Sequence[ExploreRound]) -> str:
    """Rounds, then the rate at each attempt."""
    if not explorations:
        return ""
    rounds = table(
        ["Round", "Problems", "Solved", "Unsolved", "Rollouts", "Lucky", "Outcomes"],
        [
            [
                str(each.round),
                str(each.problems),
                f"{each.solved} ({percent(each.solved / max(each.problems, 1))} %)",
                str(each.problems - each.solved),
                str(each.rollouts),
                lucky_text(each.lucky, each.lucky_checked),
                ", ".join(f"{cell(name)} {n}" for name, n in sorted(each.outcomes.items())),
            ]
            for each in explorations
        ],
    )
    attempts = table(
        ["Round", "Attempt", "Tried", "Solved", "Rate", "Solved so far"],
        [
            [
                str(each.round),
                str(rate.attempt),
                str(rate.tried),
                str(rate.solved),
                f"{percent(rate.rate)} %",
                f"{percent(rate.cumulative)} %",
            ]
            for each in explorations
            for rate in each.attempts
        ],
    )
    return f"{rounds}\n\nLucky: a right answer after a wrong thought.\n\n{attempts}"


def difficulty_markdown(rates: Sequence[DifficultyRate]) -> str:
    """Accuracy, interval and thought length by domain and difficulty, one column per model."""
    if not rates:
        return ""
    heads, rows = difficulty_grid(rates)
    grid = table(
        [cell(head) for head in heads],
        [[cell(domain), *figures] for domain, *figures in rows],
        numeric_from=1,
    )
    return f"{grid}\n\n{DIFFICULTY_READING}"


def funnel_markdown(funnel: FunnelTable) -> str:
    """One data set: rows in, kept and dropped at each step, by reason."""
    steps = table(
        ["Step", "In", "Kept", "Dropped", "By reason"],
        [
            [
                cell(step.name),
                str(step.num_in),
                str(step.num_kept),
                str(step.num_in - step.num_kept),
                ", ".join(f"{cell(why)} {n}" for why, n in sorted(step.dropped.items())),
            ]
            for step in funnel.steps
        ],
    )
    return f"### {cell(funnel.name)}\n\n{steps}"


def overlaps_markdown(overlaps: Sequence[BenchmarkOverlap]) -> str:
    """Training problems found in each benchmark."""
    if not overlaps:
        return ""
    return table(
        OVERLAP_HEADS,
        [
            [
                cell(each.benchmark),
                str(each.benchmark_problems),
                str(each.training_problems),
                str(each.removed),
                str(each.left),
            ]
            for each in overlaps
        ],
    )


def curves_markdown(curves: Sequence[Curve]) -> str:
    """Each training run as a line of bars with its first and last loss."""
    return "\n".join(curve_markdown(curve) for curve in curves if curve.steps)


def curve_markdown(curve: Curve) -> str:
    """One training run: `model: loss 2.310 -> 0.104 over 120 steps` and bars of the curve."""
    finite = [loss for loss in curve.loss if loss is not None]
    if not finite:
        return f"- {cell(curve.model)}: no finite loss"
    diverged = (
        "" if len(finite) == len(curve.loss) else f", {len(curve.loss) - len(finite)} not finite"
    )
    return (
        f"- {cell(curve.model)}: loss {finite[0]:.4f} -> {finite[-1]:.4f} "
        f"over {curve.steps[-1]} steps{diverged} `{_bars(finite)}`"
    )


def _bars(values: Sequence[float], width: int = 48) -> str:
    picked = [values[index * len(values) // width] for index in range(width)]
    picked = list(values) if len(values) <= width else picked
    low, high = min(picked), max(picked)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in picked)


def unsolved_markdown(unsolved: Sequence[UnsolvedProblem]) -> str:
    """The first unsolved problems and how many there are."""
    if not unsolved:
        return ""
    rows = table(
        ["Problem", "Domain", "Difficulty", "Attempts", "Gold", "Statement"],
        [
            [
                cell(each.problem_id),
                cell(each.domain),
                "" if each.difficulty is None else f"{each.difficulty:g}",
                str(each.attempts),
                cell(each.gold, 60),
                cell(each.statement),
            ]
            for each in unsolved[:MAX_UNSOLVED_SHOWN]
        ],
    )
    shown = min(len(unsolved), MAX_UNSOLVED_SHOWN)
    return f"{len(unsolved)} problems stayed unsolved; the first {shown}:\n\n{rows}"


def samples_markdown(samples: Sequence[SampleRollout], *, limit: int = 4_000) -> str:
    """Rollouts to read, each with its problem and verdict; text in fences it can not leave."""
    return "\n\n".join(
        f"### {number}. {sample_title(sample)}\n\n"
        f"Problem {cell(sample.problem_id)}, gold {cell(sample.gold, 60)}, "
        f"answer {cell(sample.extracted or 'none', 60)}, {sample.thought_tokens} thought tokens, "
        f"{cell(sample.method)}.\n\n"
        f"{fenced(sample.statement, limit)}\n\n{fenced(sample.text, limit)}"
        for number, sample in enumerate(samples, start=1)
    )


def sample_title(sample: SampleRollout) -> str:
    """`wrong, truncated: arithmetic-hard`."""
    cut = ", truncated" if sample.truncated else ""
    return f"{cell(sample.outcome)}{cut}: {cell(sample.benchmark)}"


def stages_markdown(stages: Sequence[StageTime]) -> str:
    """Seconds by stage; a cached stage ran no body in this run."""
    if not stages:
        return ""
    total = sum(stage.seconds for stage in stages if not stage.cached)
    rows = table(
        ["Stage", "Time", "Cached"],
        [
            [cell(stage.name), duration(stage.seconds), "yes" if stage.cached else "no"]
            for stage in stages
        ],
    )
    return f"{rows}\n\nStages that ran took {duration(total)} in all."


def summary_line(data: ReportData) -> str:
    """One line: how many claims show."""
    states = [claim.shown for claim in data.claims]
    return (
        f"{states.count(True)} of the paper's claims show, {states.count(False)} do not, "
        f"{states.count(None)} were not measured"
    )
