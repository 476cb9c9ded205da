"""Drafts: teachers' responses, split into thought and solution as far as they go, and judged.

raw responses -> unify -> complete | needs a solution | defective -> verdict on the complete ones

STILL-2 section 2.2.1: R1 writes thought and solution apart; QwQ writes a thought that ends in the
answer, whose solution a fine-tuned model completes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from still_core.errors import ConfigError, explain
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.progress import ProgressListener
from still_core.refine.funnel import Funnel
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.responses.demonstrations import distilled
from still_core.responses.format import render_response
from still_core.responses.response import Demonstration, Response
from still_core.responses.unify import Unified, unify_all
from still_core.store import Handle, Store
from still_core.store.bundle import read_rows_of
from still_core.verify import Answer, VerifierPool
from still_core.verify.verdict import Outcome, Verdict


class DraftState(StrEnum):
    """How far a response goes."""

    COMPLETE = "complete"
    NEEDS_SOLUTION = "needs_solution"
    DEFECTIVE = "defective"


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """One teacher's response on its way to a demonstration."""

    raw: RawResponse
    state: DraftState
    style: str
    thought: str = ""
    solution: str = ""
    defect: str = ""
    """Kind of defect, where the state is defective."""
    outcome: str = ""
    """Verdict on a complete draft, empty before it is judged."""
    extracted: str | None = None
    rule: str = ""
    verifier_version: str = ""
    solution_rollout_id: str = ""
    """Rollout that wrote the solution, where the teacher wrote a thought alone."""

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet: the raw response's columns and the draft's."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "raw"}
        return {**self.raw.to_row(), **own, "state": str(self.state)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Draft:
        """The inverse of `to_row`."""
        own = {
            name: row[name] for name in cls.__dataclass_fields__ if name in row and name != "raw"
        }
        return cls(raw=RawResponse.from_row(row), **{**own, "state": DraftState(own["state"])})


class VerifierMany(Protocol):
    """`still_core.verify.VerifierPool`."""

    def verify_many(
        self, answers: Iterable[Answer], progress: ProgressListener | None = None
    ) -> list[Verdict]:
        """Verdicts in the order of the answers."""


AskTeacher = Callable[[Teacher, Sequence[Problem], VerifierPool], list[RawResponse]]
"""Draws a live teacher's responses to the problems; the bank is read first."""


def distil_drafts(
    recipe: DistilRecipe,
    problems: Sequence[Problem],
    responses: Sequence[RawResponse],
    verifier: VerifierPool,
    *,
    seed: int,
    ask: AskTeacher | None = None,
    progress: ProgressListener | None = None,
) -> list[Draft]:
    """What every teacher of the recipe wrote, split, and judged where it is complete.

    Args:
        recipe: the teachers; live ones are asked for what the bank does not have.
        problems: problems of the run.
        responses: responses that came with the problems' sources.
        verifier: judges complete drafts.
        seed: of the miniature's script.
        ask: how to ask live teachers.
        progress: told while the answers are judged.

    Raises:
        ConfigError: a live teacher and no way to ask it.
    """
    drafts: list[Draft] = []
    for teacher in recipe.teachers:
        if teacher.kind in ("file", "scripted"):
            raws = gather_responses(teacher, problems, responses, seed=seed)
        elif ask is not None:
            raws = ask(teacher, problems, verifier)
        else:
            raise ConfigError(
                explain(
                    f"teacher {teacher.name!r} is a live model that nobody can ask here",
                    got=teacher.kind,
                    expected="file or scripted",
                )
            )
        drafts += draft(raws, teacher.style)
    return judge_drafts(drafts, verifier, progress=progress)


def gather_responses(
    teacher: Teacher,
    problems: Sequence[Problem],
    responses: Sequence[RawResponse],
    *,
    seed: int,
) -> list[RawResponse]:
    """What a teacher that is no live model wrote: rows of files, or the miniature's script.

    Args:
        teacher: of kind `file` or `scripted`.
        problems: problems of the run.
        responses: responses that came with the problems' sources.
        seed: of the script.
    """
    wanted = set(teacher.problems)
    if teacher.kind == "scripted":
        from still_core.miniature.teachers import distil

        asked = [p for p in problems if not wanted or p.source in wanted]
        written = distil(asked, teacher.source, seed=seed)
        return [replace(raw, teacher=teacher.name) for raw in written]
    taken: Counter[str] = Counter()
    kept = []
    for raw in responses:
        if wanted and raw.problem.source not in wanted:
            continue
        taken[raw.problem.id] += 1
        if taken[raw.problem.id] <= teacher.responses_per_problem:
            kept.append(raw if raw.teacher else replace(raw, teacher=teacher.name))
    return kept


def draft(raws: Sequence[RawResponse], style: str) -> list[Draft]:
    """Split responses into thought and solution; a live teacher's are one source."""
    files = ["bank" if raw.source_file.startswith("bank:") else raw.source_file for raw in raws]
    sources = [f"{file} {raw.teacher}" for file, raw in zip(files, raws, strict=True)]
    unified = unify_all(raws, style, sources=sources)
    return [draft_of(raw, one) for raw, one in zip(raws, unified, strict=True)]


def draft_of(raw: RawResponse, unified: Unified) -> Draft:
    """One unified response as a draft."""
    if unified.defect is not None:
        return Draft(
            raw=raw,
            state=DraftState.DEFECTIVE,
            style=str(unified.style),
            thought=unified.thought,
            defect=str(unified.defect.kind),
        )
    if unified.response is None:
        return Draft(
            raw=raw,
            state=DraftState.NEEDS_SOLUTION,
            style=str(unified.style),
            thought=unified.thought,
        )
    return Draft(
        raw=raw,
        state=DraftState.COMPLETE,
        style=str(unified.style),
        thought=unified.response.thought,
        solution=unified.response.solution,
    )


def judge_drafts(
    drafts: Sequence[Draft], verifier: VerifierMany, *, progress: ProgressListener | None = None
) -> list[Draft]:
    """The drafts with a verdict on every complete one, in their order.

    Args:
        drafts: of any state.
        verifier: judges the complete ones.
        progress: told as verdicts come in.
    """
    complete = [d for d in drafts if d.state is DraftState.COMPLETE]
    verdicts = iter(verifier.verify_many([_answer(d) for d in complete], progress))
    return [_judged(d, next(verdicts)) if d.state is DraftState.COMPLETE else d for d in drafts]


def demonstrations_of(drafts: Iterable[Draft]) -> list[Demonstration]:
    """Every complete, judged draft as a demonstration of round 0."""
    return [
        replace(
            distilled(
                d.raw,
                Response(thought=d.thought, solution=d.solution),
                Verdict(
                    outcome=Outcome(d.outcome),
                    extracted=d.extracted,
                    rule=d.rule,
                    verifier_version=d.verifier_version,
                    seconds=0.0,
                ),
            ),
            solution_rollout_id=d.solution_rollout_id,
        )
        for d in drafts
        if d.state is DraftState.COMPLETE
    ]


def draft_funnel(name: str, drafts: Sequence[Draft]) -> Funnel:
    """What the unification kept, and what it dropped by kind of defect."""
    defects = Counter(d.defect for d in drafts if d.state is DraftState.DEFECTIVE)
    return Funnel().step(name, len(drafts) - sum(defects.values()), defects)


def _answer(d: Draft) -> Answer:
    problem = d.raw.problem
    response = render_response(Response(thought=d.thought, solution=d.solution))
    return Answer(
        id=d.raw.id, gold=problem.gold, pred=response, kind=problem.kind, choices=problem.choices
    )


def _judged(d: Draft, verdict: Verdict) -> Draft:
    return replace(
        d,
        outcome=str(verdict.outcome),
        extracted=verdict.extracted,
        rule=verdict.rule,
        verifier_version=verdict.verifier_version,
    )


def read_drafts(store: Store, handle: Handle) -> list[Draft]:
    """The drafts of a published table."""
    return [Draft.from_row(row) for row in read_rows_of(store, handle, "drafts")]
