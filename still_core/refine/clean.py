"""Cleaning: every rule of the recipe over all demonstrations, with exact accounting.

demonstrations -> row rules -> duplicate problems -> duplicate responses -> Refined

Every round applies the same rules again, to the old rows and the new ones together. The result does
not depend on the order of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from still_core.errors import DataError, explain
from still_core.progress import Progress, ProgressListener
from still_core.refine.duplicates import near_duplicates
from still_core.refine.funnel import Funnel
from still_core.refine.recipe import CleanRecipe
from still_core.refine.rules import ROW_RULES, Finding
from still_core.responses.response import Demonstration

REPORT_EVERY_ROWS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """One dropped demonstration and the rule that dropped it."""

    row: Demonstration
    rule: str
    reason: str
    measured: float
    threshold: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refined:
    """What cleaning left, what it dropped, and the counts."""

    kept: list[Demonstration]
    dropped: list[Dropped]
    funnel: Funnel


def clean(
    demonstrations: Iterable[Demonstration],
    recipe: CleanRecipe,
    *,
    progress: ProgressListener | None = None,
) -> Refined:
    """Apply the recipe's rules.

    Returns:
        Kept rows in the order of the input, dropped rows in the order of the rules, and a funnel
        with one step per rule.

    Raises:
        DataError: two demonstrations share an id.
    """
    rows = list(demonstrations)
    check_ids(rows)
    dropped: list[Dropped] = []
    funnel = Funnel()
    for number, rule in enumerate(recipe.rules):
        findings = _apply(rule, rows, recipe)
        lost = [_dropped(rows[i], rule, finding) for i, finding in sorted(findings.items())]
        rows = [row for i, row in enumerate(rows) if i not in findings]
        funnel.step(rule, len(rows), Counter(one.reason for one in lost))
        dropped.extend(lost)
        if progress is not None:
            progress(
                Progress(stage="clean", done=number + 1, total=len(recipe.rules), unit="rules")
            )
    return Refined(kept=rows, dropped=dropped, funnel=funnel)


def judge(row: Demonstration, recipe: CleanRecipe) -> Dropped | None:
    """The first row rule of the recipe that drops one demonstration; duplicates need all rows."""
    for rule in recipe.rules:
        if rule in ROW_RULES and (finding := ROW_RULES[rule](row, recipe)) is not None:
            return _dropped(row, rule, finding)
    return None


def check_ids(rows: Sequence[Demonstration]) -> None:
    """Refuse rows that share an id: neither order nor lineage would be defined."""
    counts = Counter(row.id for row in rows)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise DataError(
            explain("demonstrations share an id", got=twice[:5], remedy="make ids unique")
        )


def _apply(rule: str, rows: list[Demonstration], recipe: CleanRecipe) -> dict[int, Finding]:
    if rule in ROW_RULES:
        check = ROW_RULES[rule]
        found = {i: check(row, recipe) for i, row in enumerate(rows)}
        return {i: finding for i, finding in found.items() if finding is not None}
    if rule == "duplicate_problem":
        return duplicate_problems(rows, recipe)
    return duplicate_responses(rows, recipe)


def stable_key(row: Demonstration) -> str:
    """Who is kept among duplicates: the earlier round, then the lower id."""
    return f"{row.round:06d} {row.id}"


def duplicate_responses(rows: Sequence[Demonstration], recipe: CleanRecipe) -> dict[int, Finding]:
    """Responses whose thought and solution repeat another response, whatever their problem."""
    texts = [f"{row.thought}\n\n{row.solution}" for row in rows]
    found = near_duplicates(
        texts,
        [stable_key(row) for row in rows],
        threshold=recipe.duplicate_jaccard,
        shingle_tokens=recipe.shingle_tokens,
    )
    return {
        one.index: Finding(
            reason="exact_response" if texts[one.index] == texts[one.of] else "near_response",
            measured=one.jaccard,
            threshold=recipe.duplicate_jaccard,
            detail=rows[one.of].id,
        )
        for one in found
    }


def duplicate_problems(rows: Sequence[Demonstration], recipe: CleanRecipe) -> dict[int, Finding]:
    """Responses to a problem that repeats another problem under another identity.

    Several responses to one problem are no duplicates. Two problems count as one when their wording
    is near and both their numbers and gold answers agree: a changed number is another problem.
    """
    first: dict[str, int] = {}
    for i in sorted(range(len(rows)), key=lambda i: stable_key(rows[i])):
        first.setdefault(rows[i].problem_digest, i)
    places = list(first.values())
    keys = [stable_key(rows[i]) for i in places]
    drop: dict[str, Finding] = {}
    groups: dict[str, list[int]] = {}
    for at, i in enumerate(places):
        groups.setdefault(_numbers_and_gold(rows[i]), []).append(at)
    for members in groups.values():
        if len(members) < 2:
            continue
        found = near_duplicates(
            [rows[places[at]].statement for at in members],
            [keys[at] for at in members],
            threshold=recipe.duplicate_jaccard,
            shingle_tokens=min(recipe.shingle_tokens, 3),
        )
        for one in found:
            row, other = rows[places[members[one.index]]], rows[places[members[one.of]]]
            drop[row.problem_digest] = Finding(
                reason="exact_problem" if row.statement == other.statement else "near_problem",
                measured=one.jaccard,
                threshold=recipe.duplicate_jaccard,
                detail=other.problem_id,
            )
    return {i: drop[row.problem_digest] for i, row in enumerate(rows) if row.problem_digest in drop}


def _numbers_and_gold(row: Demonstration) -> str:
    digits = "".join(c if c.isdigit() else " " for c in row.statement).split()
    return " ".join(sorted(digits)) + "|" + "".join(row.gold.split())


def _dropped(row: Demonstration, rule: str, finding: Finding) -> Dropped:
    return Dropped(
        row=row,
        rule=rule,
        reason=finding.reason,
        measured=finding.measured,
        threshold=finding.threshold,
        detail=finding.detail,
    )
