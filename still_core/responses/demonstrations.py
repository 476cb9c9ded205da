"""From judged responses to demonstrations, with their lineage.

RawResponse + Response + Verdict -> distilled -> Demonstration
Problem + Rollout -> explored -> Demonstration
"""

from __future__ import annotations

from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.responses.response import Demonstration, Origin, Response
from still_core.rollout.rollout import Rollout
from still_core.verify.verdict import Verdict


def distilled(raw: RawResponse, response: Response, verdict: Verdict) -> Demonstration:
    """A teacher's response, unified and judged, as a demonstration of round 0."""
    return _demonstration(
        raw.problem,
        response,
        id=raw.id,
        origin=Origin.DISTILLED,
        author=raw.teacher,
        round=0,
        source_row=f"{raw.source_file}:{raw.row}",
        verdict=str(verdict.outcome),
        verifier_version=verdict.verifier_version,
        num_thought_tokens=None,
    )


def explored(
    problem: Problem, rollout: Rollout, response: Response, *, round: int
) -> Demonstration:
    """A rollout from the bank, and the response read from it, as a demonstration of round t."""
    return _demonstration(
        problem,
        response,
        id=rollout.id,
        origin=Origin.EXPLORED,
        author=rollout.policy_digest,
        round=round,
        source_row=rollout.id,
        verdict=rollout.outcome,
        verifier_version=rollout.verifier_version,
        num_thought_tokens=None,
    )


def _demonstration(
    problem: Problem,
    response: Response,
    *,
    id: str,
    origin: Origin,
    author: str,
    round: int,
    source_row: str,
    verdict: str,
    verifier_version: str,
    num_thought_tokens: int | None,
) -> Demonstration:
    return Demonstration(
        id=id,
        problem_id=problem.id,
        problem_digest=problem.digest,
        statement=problem.statement,
        gold=problem.gold,
        kind=str(problem.kind),
        domain=problem.domain,
        bucket=str(problem.bucket),
        level=problem.level,
        thought=response.thought,
        solution=response.solution,
        origin=origin,
        author=author,
        round=round,
        source_row=source_row,
        verdict=verdict,
        verifier_version=verifier_version,
        num_thought_tokens=num_thought_tokens,
    )
