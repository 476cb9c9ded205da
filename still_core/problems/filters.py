"""Which problems are fit for training: duplicates, kinds, question types, numeric golds.

problems -> duplicate -> kind -> question_type -> numeric_gold -> kept | dropped by a named rule
(STILL-2 section 2.2.1, STILL-3 section 2.1)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from still_core.problems.decontaminate import statement_key
from still_core.problems.problem import AnswerKind, Problem, QuestionType
from still_core.problems.recipe import FilterRecipe

if TYPE_CHECKING:
    from still_core.refine.funnel import Funnel


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedProblem:
    """A problem that a rule dropped."""

    problem: str
    """Id of the problem."""
    source: str
    row: int
    """0-based row of the source file."""
    rule: str
    """duplicate, kind, question_type, numeric_gold or overlap."""
    reason: str
    """What the rule found, e.g. the id of the first of two duplicates."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet."""
        return {
            "problem": self.problem,
            "source": self.source,
            "row": self.row,
            "rule": self.rule,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Filtered:
    """What the filters kept and dropped."""

    kept: list[Problem]
    dropped: list[DroppedProblem]
    funnel: Funnel


Rule = Callable[[Problem], str | None]
"""The reason why a problem is dropped, or None."""


def filter_problems(problems: Sequence[Problem], recipe: FilterRecipe) -> Filtered:
    """Apply the recipe's rules in order; each problem is dropped by the first that objects."""
    from still_core.refine.funnel import Funnel

    kept, dropped, funnel = list(problems), list[DroppedProblem](), Funnel()
    for name, rule in _rules(recipe):
        passed: list[Problem] = []
        reasons: Counter[str] = Counter()
        for problem in kept:
            reason = rule(problem)
            if reason is None:
                passed.append(problem)
                continue
            dropped.append(drop(problem, name, reason))
            reasons[name if name == "duplicate" else reason] += 1
        kept = passed
        funnel.step(f"filter {name}", len(kept), reasons)
    return Filtered(kept=kept, dropped=dropped, funnel=funnel)


def drop(problem: Problem, rule: str, reason: str) -> DroppedProblem:
    """The record of a dropped problem."""
    return DroppedProblem(
        problem=problem.id, source=problem.source, row=problem.row, rule=rule, reason=reason
    )


def _rules(recipe: FilterRecipe) -> list[tuple[str, Rule]]:
    rules: list[tuple[str, Rule]] = []
    if recipe.drop_duplicates:
        rules.append(("duplicate", _Duplicate()))
    if recipe.kinds:
        rules.append(("kind", lambda p: None if p.kind in recipe.kinds else f"kind:{p.kind}"))
    if recipe.drop_question_types:
        rules.append(("question_type", _question_type_rule(recipe.drop_question_types)))
    if recipe.require_numeric_gold:
        rules.append(("numeric_gold", _numeric_gold))
    return rules


class _Duplicate:
    """Drops every problem whose normalised statement stood before; says which one that was."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __call__(self, problem: Problem) -> str | None:
        first = self._first.setdefault(statement_key(problem.statement), problem.id)
        return None if first == problem.id else first


def _question_type_rule(unwanted: tuple[QuestionType, ...]) -> Rule:
    from still_core.verify.verifiability import question_type

    def rule(problem: Problem) -> str | None:
        is_choice = problem.kind is AnswerKind.CHOICE
        found = QuestionType.MULTIPLE_CHOICE if is_choice else question_type(problem.statement)
        return str(found) if found in unwanted else None

    return rule


def _numeric_gold(problem: Problem) -> str | None:
    from still_core.verify.verifiability import parses_to_digits

    if problem.kind is not AnswerKind.MATH:
        return None
    return None if parses_to_digits(problem.gold) else "not_numeric"
