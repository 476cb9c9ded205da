"""Exact accounting: at every step, rows in = rows kept + rows dropped by reason.

Funnel().step("parse", 90, {"truncated": 10}).step("clean", 80, {"wrong": 10})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from still_core.errors import DataError, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class FunnelStep:
    """One step's counts."""

    name: str
    num_in: int
    num_kept: int
    dropped: dict[str, int]
    """Rows by reason code; only reasons that dropped any, sorted."""


@dataclass(kw_only=True, slots=True)
class Funnel:
    """Steps in order; each takes in what the one before kept."""

    steps: list[FunnelStep] = field(default_factory=list)

    def step(self, name: str, kept: int, dropped_by_reason: Mapping[str, int]) -> Funnel:
        """Add a step and return the funnel.

        Raises:
            DataError: a count is negative, the name repeats, or the step does not take in exactly
                what the one before kept.
        """
        dropped = {str(r): int(n) for r, n in sorted(dropped_by_reason.items()) if n}
        if kept < 0 or any(n < 0 for n in dropped.values()):
            raise DataError(explain(f"funnel step {name!r} has a negative count", got=dropped))
        if any(step.name == name for step in self.steps):
            raise DataError(explain("funnel step named twice", got=name))
        num_in = kept + sum(dropped.values())
        if self.steps and self.steps[-1].num_kept != num_in:
            raise DataError(
                explain(
                    f"funnel step {name!r} loses or invents rows",
                    got=num_in,
                    expected=f"{self.steps[-1].num_kept} rows from {self.steps[-1].name!r}",
                )
            )
        self.steps.append(FunnelStep(name=name, num_in=num_in, num_kept=kept, dropped=dropped))
        return self

    @property
    def num_in(self) -> int:
        """Rows that entered the first step."""
        return self.steps[0].num_in if self.steps else 0

    @property
    def num_kept(self) -> int:
        """Rows that left the last step."""
        return self.steps[-1].num_kept if self.steps else 0

    @property
    def num_dropped(self) -> int:
        """Rows that any step dropped; in = kept + dropped holds by construction."""
        return sum(sum(step.dropped.values()) for step in self.steps)

    def extend(self, other: Funnel) -> Funnel:
        """Append the steps of a later stage."""
        for step in other.steps:
            self.step(step.name, step.num_kept, step.dropped)
        return self

    def to_rows(self) -> list[dict[str, Any]]:
        """Flat rows: one per step and reason; an empty reason where a step dropped nothing."""
        rows: list[dict[str, Any]] = []
        for number, step in enumerate(self.steps):
            for reason, count in (step.dropped or {"": 0}).items():
                rows.append(
                    {
                        "number": number,
                        "step": step.name,
                        "num_in": step.num_in,
                        "num_kept": step.num_kept,
                        "reason": reason,
                        "num_dropped": count,
                    }
                )
        return rows

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Funnel:
        """The inverse of `to_rows`; the rows may come in any order.

        Raises:
            DataError: the counts do not add up.
        """
        by_number: dict[int, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_number.setdefault(int(row["number"]), []).append(row)
        funnel = cls()
        for number in sorted(by_number):
            group = by_number[number]
            dropped = {str(r["reason"]): int(r["num_dropped"]) for r in group if r["reason"]}
            kept = int(group[0]["num_kept"])
            if kept + sum(dropped.values()) != int(group[0]["num_in"]):
                raise DataError(
                    explain(
                        f"funnel step {group[0]['step']!r} does not add up",
                        got=kept + sum(dropped.values()),
                        expected=str(group[0]["num_in"]),
                    )
                )
            funnel.step(str(group[0]["step"]), kept, dropped)
        return funnel

    def to_markdown(self) -> str:
        """A table for people: one line per step, then its reasons."""
        lines = ["| step | in | kept | dropped by reason |", "|---|---:|---:|---|"]
        for step in self.steps:
            reasons = ", ".join(f"{reason} {count}" for reason, count in step.dropped.items())
            lines.append(f"| {step.name} | {step.num_in} | {step.num_kept} | {reasons or '-'} |")
        return "\n".join(lines)


def merge(funnels: Sequence[Funnel]) -> Funnel:
    """One funnel of several shards that went through the same steps.

    Raises:
        DataError: the shards have different steps.
    """
    if not funnels:
        return Funnel()
    names = [step.name for step in funnels[0].steps]
    merged = Funnel()
    for funnel in funnels:
        if [step.name for step in funnel.steps] != names:
            raise DataError(explain("shards went through different steps", got=names))
    for number, name in enumerate(names):
        dropped: Counter[str] = Counter()
        for funnel in funnels:
            dropped.update(funnel.steps[number].dropped)
        merged.step(name, sum(f.steps[number].num_kept for f in funnels), dropped)
    return merged
