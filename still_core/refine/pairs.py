"""DPO pairs of one problem (STILL-2 section 2.3.3).

correct rows + incorrect rows -> chosen: higher perplexity, rejected: lower perplexity

A correct response that the model finds hard against a wrong one that it finds easy is the hardest
discrimination.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from still_core.errors import DataError, explain
from still_core.refine.clean import check_ids
from still_core.refine.funnel import Funnel
from still_core.refine.recipe import PairRecipe
from still_core.responses.response import Demonstration
from still_core.verify.verdict import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A chosen and a rejected response to one problem."""

    chosen: Demonstration
    rejected: Demonstration

    @property
    def id(self) -> str:
        """Identity by both responses."""
        return f"{self.chosen.id}>{self.rejected.id}"

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet: both responses' columns with a prefix, the statement without."""
        return {
            "id": self.id,
            "statement": self.chosen.statement,
            **{f"chosen_{k}": v for k, v in self.chosen.to_row().items()},
            **{f"rejected_{k}": v for k, v in self.rejected.to_row().items()},
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Pair:
        """The inverse of `to_row`."""

        def part(prefix: str) -> Demonstration:
            fields = {k[len(prefix) :]: v for k, v in row.items() if k.startswith(prefix)}
            return Demonstration.from_row(fields)

        return cls(chosen=part("chosen_"), rejected=part("rejected_"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """Pairs, and what became of every response."""

    pairs: list[Pair]
    funnel: Funnel


def make_pairs(rows: Sequence[Demonstration], recipe: PairRecipe) -> Paired:
    """Pair correct with wrong responses of the same problem; each response stands in one pair.

    Responses whose verdict judges nothing (time-out, error, unparsable) join no pair.

    Raises:
        DataError: a correct or wrong row has no perplexity although the recipe ranks by it.
    """
    check_ids(rows)
    lost: Counter[str] = Counter()
    sides: dict[str, tuple[list[Demonstration], list[Demonstration]]] = defaultdict(
        lambda: ([], [])
    )
    for row in rows:
        if row.verdict == Outcome.CORRECT:
            sides[row.problem_digest][0].append(row)
        elif row.verdict in (Outcome.WRONG, Outcome.NO_ANSWER):
            sides[row.problem_digest][1].append(row)
        else:
            lost["not_judged"] += 1
    pairs: list[Pair] = []
    for problem in sorted(sides):
        correct, wrong = sides[problem]
        if not correct or not wrong:
            lost["only_correct" if correct else "only_wrong"] += len(correct) + len(wrong)
            continue
        correct.sort(key=lambda row: (-_rank(row, recipe), row.id))
        wrong.sort(key=lambda row: (_rank(row, recipe), row.id))
        count = min(len(correct), len(wrong), recipe.max_pairs_per_problem)
        pairs += [
            Pair(chosen=c, rejected=w) for c, w in zip(correct[:count], wrong[:count], strict=True)
        ]
        lost["surplus"] += len(correct) + len(wrong) - 2 * count
    funnel = Funnel().step("pairs", 2 * len(pairs), lost)
    return Paired(pairs=pairs, funnel=funnel)


def _rank(row: Demonstration, recipe: PairRecipe) -> float:
    if not recipe.by_perplexity:
        return 0.0
    if row.perplexity is None:
        raise DataError(
            explain(
                f"response {row.id!r} has no perplexity",
                remedy="score the responses under the current model first",
            )
        )
    return row.perplexity
