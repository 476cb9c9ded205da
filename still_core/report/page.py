"""report.html: one self-contained page. No scripts, no external resources, all text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape

from still_core.report import plots
from still_core.report.data import (
    Claim,
    ExploreRound,
    FunnelTable,
    ModelRow,
    ReportData,
    SampleRollout,
)
from still_core.report.markdown import (
    DIFFICULTY_READING,
    MAX_UNSOLVED_SHOWN,
    OVERLAP_HEADS,
    summary_line,
)
from still_core.report.table import benchmark_names, difficulty_grid
from still_core.report.text import (
    clip,
    count,
    duration,
    gain_text,
    lucky_text,
    p_value,
    percent,
    percent_range,
    visible,
)

MAX_SAMPLE_CHARACTERS = 40_000
"""Of one rollout on the page; report.json has it whole."""

STYLE = """
:root{color-scheme:light dark;
--ink:#1d2329;--soft:#5c6773;--line:#d9dee3;--page:#fff;--card:#f6f7f9;
--good:#1c7a4f;--bad:#b3372c;--mark:#8250c4}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa5b1;--line:#353d46;--page:#14181c;
--card:#1c2127;--good:#5cc894;--bad:#f08a7e;--mark:#c3a2f2}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:28px 22px 60px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;margin:0 0 2px}h2{font-size:19px;margin:36px 0 10px}
h3{font-size:15px;margin:20px 0 6px}p{margin:6px 0}.soft{color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft);vertical-align:bottom}
.n{text-align:right}td small{display:block;color:var(--soft);white-space:nowrap}
ul.claims{list-style:none;padding:0;margin:0}ul.claims li{padding:7px 0 7px 132px;position:relative;
border-bottom:1px solid var(--line)}ul.claims b{position:absolute;left:0;width:124px}
.yes{color:var(--good)}.no{color:var(--bad)}.none{color:var(--soft)}
figure{margin:14px 0;color:var(--ink)}figure svg{max-width:100%;height:auto}
details{background:var(--card);border:1px solid var(--line);border-radius:6px;margin:6px 0;
padding:7px 12px}summary{cursor:pointer}details[open] summary{margin-bottom:8px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:6px 0;max-height:520px;
overflow-y:auto;font:12.5px/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
hr{border:0;border-top:1px solid var(--line)}
.mark{color:var(--mark)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:6px 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
"""

_THOUGHT_MARK = re.compile(r"&lt;\|(?:begin|end)_of_(?:thought|solution)\|&gt;")


def render_page(data: ReportData) -> str:
    """The whole page. Reads well on light and dark screens and with scripts switched off."""
    sections = [
        ("Accuracy", _accuracy(data)),
        ("The paper's claims", _claims(data.claims)),
        ("Thought length", plots.thought_plot(data.rows)),
        ("By difficulty", _difficulty(data)),
        ("Exploration", _explorations(data.explorations)),
        ("Refinement", "".join(_funnel(funnel) for funnel in data.funnels)),
        ("Decontamination", _overlaps(data)),
        ("Training", plots.curve_plot(data.curves) if data.curves else ""),
        ("Rollouts to read", "".join(_sample(sample) for sample in data.samples)),
        ("Unsolved problems", _unsolved(data)),
        ("Time by stage", _stages(data)),
        ("Notes", "".join(f"<p>{_text(note)}</p>" for note in data.notes)),
        ("Recipe", _recipe(data)),
    ]
    body = "".join(
        f"<section><h2>{escape(title)}</h2>{_framed(content)}</section>\n"
        for title, content in sections
        if content
    )
    # The policy is a second lock: even text that slipped through escaping could load nothing.
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(data.run)}</title><style>{STYLE}</style></head>\n<body>"
        f"<h1>{_text(data.run)}</h1>"
        f'<p class="soft">Recipe {_text(data.recipe_name)}. {_text(summary_line(data))}.</p>\n'
        f"{body}</body></html>\n"
    )


def _text(value: object) -> str:
    return escape(visible(str(value)))


def _framed(content: str) -> str:
    return f"<figure>{content}</figure>" if content.startswith("<svg") else content


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML already; columns not in `left` are right-aligned."""
    kind = ["" if index in left else ' class="n"' for index in range(len(heads))]
    head = "".join(f"<th{each}>{name}</th>" for each, name in zip(kind, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{each}>{content}</td>" for each, content in zip(kind, row, strict=True))
        + "</tr>"
        for row in rows
    )
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{parts}</table></div>'


def _accuracy(data: ReportData) -> str:
    names = benchmark_names(data)
    heads = ["Method", "Distill", "Explore", "Thought<br>tokens", "Truncated", "Lucky"]
    for name in names:
        n = max(row.benchmarks[name].n for row in data.rows if name in row.benchmarks)
        heads.append(f"{_text(name)}<br>n = {n}")
    rows = [
        [
            _text(row.method),
            count(row.distill),
            count(row.explore),
            f"{row.thought_tokens:.1f}",
            f"{percent(row.truncated_rate)} %",
            _lucky(row),
            *(_score(data, row, name) for name in names),
        ]
        for row in data.rows
    ]
    return (
        _table(heads, rows)
        + '<p class="soft">Accuracy in %, its 95 % Wilson interval, the gain relative to the first '
        "row (in points where that solves nothing), and the exact two-sided paired test against "
        "the row above. Lucky: right answers after a wrong thought, of those whose "
        "thought was checked.</p>" + f"<figure>{plots.accuracy_plot(data.rows)}</figure>"
    )


def _lucky(row: ModelRow) -> str:
    if not row.lucky_checked:
        return "-"
    share = percent(row.lucky / row.lucky_checked)
    return f"{share} %<small>{row.lucky} of {row.lucky_checked}</small>"


def _score(data: ReportData, row: ModelRow, name: str) -> str:
    if name not in row.benchmarks:
        return "-"
    score = row.benchmarks[name]
    lines = [percent_range(score.low, score.high)]
    if name in row.gain:
        backbone = data.rows[0].benchmarks[name].accuracy
        lines.append(gain_text(score.accuracy, backbone, row.gain[name]))
    if name in row.p_vs_previous:
        lines.append(p_value(row.p_vs_previous[name]))
    small = "".join(f"<small>{_text(line)}</small>" for line in lines)
    return f"<b>{percent(score.accuracy)}</b>{small}"


def _claims(claims: Sequence[Claim]) -> str:
    words = {
        True: ("yes", "shown"),
        False: ("no", "not shown"),
        None: ("none", "not measured"),
    }
    items = "".join(
        f'<li><b class="{words[claim.shown][0]}">{words[claim.shown][1]}</b>{_text(claim.text)}'
        f'<br><span class="soft">{_text(claim.evidence)}</span></li>'
        for claim in claims
    )
    return f'<ul class="claims">{items}</ul>' if items else ""


def _difficulty(data: ReportData) -> str:
    if not data.difficulty_rates:
        return ""
    heads, rows = difficulty_grid(data.difficulty_rates)
    grid = _table(
        [_text(head) for head in heads],
        [[_text(figure) for figure in row] for row in rows],
    )
    return (
        f"<figure>{plots.difficulty_plot(data.difficulty_rates)}</figure>"
        f'<details><summary>The figures</summary>{grid}<p class="soft">{DIFFICULTY_READING}</p>'
        "</details>"
    )


def _explorations(explorations: Sequence[ExploreRound]) -> str:
    if not explorations:
        return ""
    rows = [
        [
            str(each.round),
            str(each.problems),
            f"{each.solved} ({percent(each.solved / max(each.problems, 1))} %)",
            str(each.problems - each.solved),
            str(each.rollouts),
            _text(lucky_text(each.lucky, each.lucky_checked)),
            _text(", ".join(f"{name} {n}" for name, n in sorted(each.outcomes.items()))),
        ]
        for each in explorations
    ]
    heads = ["Round", "Problems", "Solved", "Unsolved", "Rollouts", "Lucky", "Outcomes"]
    plot = ""
    if any(each.attempts for each in explorations):
        plot = f"<figure>{plots.attempt_plot(explorations)}</figure>"
    return (
        _table(heads, rows, (0, 6))
        + '<p class="soft">Lucky: a right answer after a wrong thought.</p>'
        + plot
    )


def _funnel(funnel: FunnelTable) -> str:
    rows = [
        [
            _text(step.name),
            str(step.num_in),
            str(step.num_kept),
            str(step.num_in - step.num_kept),
            _text(", ".join(f"{reason} {n}" for reason, n in sorted(step.dropped.items()))),
        ]
        for step in funnel.steps
    ]
    heads = ["Step", "In", "Kept", "Dropped", "By reason"]
    return f"<h3>{_text(funnel.name)}</h3>{_table(heads, rows, (0, 4))}"


def _overlaps(data: ReportData) -> str:
    rows = [
        [
            _text(each.benchmark),
            str(each.benchmark_problems),
            str(each.training_problems),
            str(each.removed),
            str(each.left),
        ]
        for each in data.overlaps
    ]
    return _table(OVERLAP_HEADS, rows) if rows else ""


def _sample(sample: SampleRollout) -> str:
    state = "yes" if sample.outcome == "correct" else "no"
    words = sample.outcome + (", truncated" if sample.truncated else "")
    facts = {
        "problem": sample.problem_id,
        "gold": sample.gold,
        "answer": "none" if sample.extracted is None else sample.extracted,
        "thought tokens": sample.thought_tokens,
    }
    listed = "".join(
        f"<dt>{name}</dt><dd>{_text(clip(str(fact), 400))}</dd>" for name, fact in facts.items()
    )
    body = _THOUGHT_MARK.sub(
        lambda mark: f'<span class="mark">{mark.group()}</span>',
        _text(clip(sample.text, MAX_SAMPLE_CHARACTERS)),
    )
    statement = _text(clip(sample.statement, MAX_SAMPLE_CHARACTERS))
    return (
        f'<details><summary><b class="{state}">{_text(words)}</b> {_text(sample.benchmark)} '
        f'<span class="soft">{_text(sample.method)}</span></summary>'
        f"<dl>{listed}</dl><pre>{statement}</pre><hr><pre>{body}</pre></details>"
    )


def _unsolved(data: ReportData) -> str:
    if not data.unsolved:
        return ""
    shown = data.unsolved[:MAX_UNSOLVED_SHOWN]
    rows = [
        [
            _text(each.problem_id),
            _text(each.domain),
            "" if each.difficulty is None else f"{each.difficulty:g}",
            str(each.attempts),
            _text(clip(each.gold, 60)),
            _text(clip(each.statement, 200)),
        ]
        for each in shown
    ]
    heads = ["Problem", "Domain", "Difficulty", "Attempts", "Gold", "Statement"]
    return (
        f"<details><summary>{len(data.unsolved)} problems stayed unsolved; "
        f"the first {len(shown)}</summary>{_table(heads, rows, (0, 1, 4, 5))}</details>"
    )


def _stages(data: ReportData) -> str:
    if not data.stages:
        return ""
    rows = [
        [_text(stage.name), duration(stage.seconds), "cached" if stage.cached else "ran"]
        for stage in data.stages
    ]
    return (
        f"<figure>{plots.stage_plot(data.stages)}</figure><details><summary>The figures</summary>"
        f"{_table(['Stage', 'Time', ''], rows, (0, 2))}</details>"
    )


def _recipe(data: ReportData) -> str:
    text = _text(json.dumps(data.recipe, indent=2, sort_keys=True))
    return f"<details><summary>The resolved recipe</summary><pre>{text}</pre></details>"
