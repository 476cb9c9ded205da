"""Lineage: from a kept row to its source and the rules it passed, from a dropped one to its rule.

Refined + CleanRecipe -> rows of the tables `kept`, `dropped`, `rules` in the store -> trace(id)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from still_core.errors import DataError, explain
from still_core.refine.clean import Dropped, Refined
from still_core.refine.recipe import RULES_VERSION, CleanRecipe
from still_core.responses.response import Demonstration, Origin

_THRESHOLDS: dict[str, tuple[str, ...]] = {
    "verdict": ("keep_outcomes",),
    "markup": (),
    "truncated": (),
    "short": ("min_thought_characters", "min_thought_steps"),
    "repetition": (
        "repetition_ngram_tokens",
        "max_repeated_ngrams",
        "min_loop_tokens",
        "min_word_loop_tokens",
        "min_short_loop_tokens",
        "min_loop_turns",
        "min_numbered_loop_turns",
        "min_numbered_loop_words",
        "max_numbered_loop_changes",
    ),
    "gibberish": (
        "gibberish_window_letters",
        "min_word_plausibility",
        "gibberish_window_characters",
        "min_character_plausibility",
        "min_gibberish_words",
        "max_blob_characters",
        "max_broken_characters",
    ),
    "scripts": ("max_foreign_letters",),
    "duplicate_problem": ("duplicate_jaccard", "shingle_tokens"),
    "duplicate_response": ("duplicate_jaccard", "shingle_tokens", "min_duplicate_tokens"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedRule:
    """One rule as it was applied."""

    rule: str
    version: str
    thresholds: dict[str, Any]
    """Recipe fields that the rule reads, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Where one row comes from and what became of it."""

    id: str
    problem_id: str
    problem_digest: str
    source_row: str
    """`file:row` of the teacher's response, or the rollout id."""
    origin: str
    author: str
    """Teacher, or digest of the policy that explored it."""
    round: int
    verdict: str
    verifier_version: str
    passed: tuple[PassedRule, ...]
    """Rules that it passed, in order."""
    dropped_by: str = ""
    """Rule that dropped it; empty where it was kept."""
    reason: str = ""
    measured: float = 0.0
    threshold: float = 0.0
    detail: str = ""
    solution_rollout_id: str = ""
    """Rollout that wrote the solution, where the teacher wrote a thought alone."""

    def to_text(self) -> str:
        """A few lines for people."""
        kind = "teacher" if self.origin == Origin.DISTILLED else "policy"
        lines = [
            f"demonstration {self.id}",
            f"problem       {self.problem_id} ({self.problem_digest})",
            f"source        {self.source_row}, {kind} {self.author}, round {self.round}",
            f"verdict       {self.verdict} by verifier {self.verifier_version}",
        ]
        if self.solution_rollout_id:
            lines.append(f"solution      rollout {self.solution_rollout_id}")
        lines += [f"passed        {rule.rule} {rule.thresholds or ''}" for rule in self.passed]
        if self.dropped_by:
            evidence = f" {self.detail!r}" if self.detail else ""
            lines.append(
                f"dropped by    {self.dropped_by}: {self.reason}, measured {self.measured:g}, "
                f"threshold {self.threshold:g}{evidence}"
            )
        return "\n".join(lines)


def applied_rules(recipe: CleanRecipe) -> list[PassedRule]:
    """The recipe's rules with their thresholds, in order."""
    return [
        PassedRule(
            rule=rule,
            version=RULES_VERSION,
            thresholds={name: getattr(recipe, name) for name in _THRESHOLDS[rule]},
        )
        for rule in recipe.rules
    ]


def trace(
    row_id: str, refined: Refined, applied: CleanRecipe | Sequence[Mapping[str, Any]]
) -> Trace:
    """Follow one row of a cleaning.

    Args:
        row_id: id of a kept or dropped demonstration.
        refined: what the cleaning kept and dropped.
        applied: the recipe, or the rules as a manifest's `meta` holds them (`rules_meta`): those of
            that time, with the thresholds that there were.

    Raises:
        DataError: no row has that id.
    """
    if isinstance(applied, CleanRecipe):
        rules = applied_rules(applied)
    else:
        rules = [PassedRule(**rule) for rule in applied]
    for row in refined.kept:
        if row.id == row_id:
            return _trace(row, tuple(rules), None)
    for one in refined.dropped:
        if one.row.id == row_id:
            names = [rule.rule for rule in rules]
            before = rules[: names.index(one.rule)] if one.rule in names else rules
            return _trace(one.row, tuple(before), one)
    raise DataError(explain("no such demonstration", got=row_id, remedy="see `still data funnel`"))


def _trace(row: Demonstration, passed: tuple[PassedRule, ...], dropped: Dropped | None) -> Trace:
    return Trace(
        id=row.id,
        problem_id=row.problem_id,
        problem_digest=row.problem_digest,
        source_row=row.source_row,
        origin=str(row.origin),
        author=row.author,
        round=row.round,
        verdict=row.verdict,
        verifier_version=row.verifier_version,
        passed=passed,
        dropped_by=dropped.rule if dropped else "",
        reason=dropped.reason if dropped else "",
        measured=dropped.measured if dropped else 0.0,
        threshold=dropped.threshold if dropped else 0.0,
        detail=dropped.detail if dropped else "",
        solution_rollout_id=row.solution_rollout_id,
    )


def dropped_rows(dropped: Iterable[Dropped]) -> list[dict[str, Any]]:
    """Flat rows of the dropped table: the demonstration and the rule that dropped it."""
    return [
        {
            **one.row.to_row(),
            "dropped_by": one.rule,
            "reason": one.reason,
            "measured": one.measured,
            "threshold": one.threshold,
            "evidence": one.detail,
        }
        for one in dropped
    ]


def dropped_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Dropped]:
    """The inverse of `dropped_rows`."""
    return [
        Dropped(
            row=Demonstration.from_row(dict(row)),
            rule=str(row["dropped_by"]),
            reason=str(row["reason"]),
            measured=float(row["measured"]),
            threshold=float(row["threshold"]),
            detail=str(row["evidence"]),
        )
        for row in rows
    ]


def rules_meta(recipe: CleanRecipe) -> list[dict[str, Any]]:
    """The applied rules as plain JSON, for a manifest's `meta`."""
    return [asdict(rule) for rule in applied_rules(recipe)]


def examples_by_rule(dropped: Sequence[Dropped], *, per_reason: int = 3) -> list[dict[str, str]]:
    """A few short examples of each reason, lowest ids first, for reports."""
    seen: dict[str, int] = {}
    examples = []
    for one in sorted(dropped, key=lambda d: (d.rule, d.reason, d.row.id)):
        key = f"{one.rule}/{one.reason}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= per_reason:
            evidence = one.detail or one.row.thought[:80]
            examples.append(
                {"rule": one.rule, "reason": one.reason, "id": one.row.id, "evidence": evidence}
            )
    return examples
