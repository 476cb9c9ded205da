"""Solution completion: a fine-tuned model writes the solution that a QwQ-style thought lacks.

thought -> prompt + thought + opened solution -> bank, else fine-tuned model -> solution -> draft
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from still_core.distil.drafts import Draft, DraftState, draft_of
from still_core.errors import DataError, StoreError
from still_core.identity import digest
from still_core.progress import Progress, ProgressListener
from still_core.responses.format import DefectKind
from still_core.responses.prompts import Prompt, completion_request, prompt
from still_core.responses.unify import Style, Unified, complete
from still_core.rollout.bank_rows import storable
from still_core.rollout.rollout import Rollout, RolloutRequest, Sampling
from still_core.rollout.search import Bank, Pool, RolloutWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    draft: Draft
    request: RolloutRequest


def complete_drafts(
    drafts: Sequence[Draft],
    pool: Pool,
    bank: Bank,
    *,
    prompt_name: str,
    sampling: Sampling,
    owner: str = "complete",
    progress: ProgressListener | None = None,
) -> list[Draft]:
    """Complete every draft that needs a solution.

    Args:
        drafts: any drafts; those that need no solution are left out of the result.
        pool: holds the solution writer's weights.
        bank: read first; gets every solution as it ends, not judged.
        prompt_name: the prompt that the writer was trained with.
        sampling: greedy, as a rule; `max_tokens` bounds the solution alone.
        owner: who writes, for people.
        progress: told as solutions end.

    Returns:
        Complete or defective drafts, in the order of the input.
    """
    template = prompt(prompt_name)
    asked = [
        _ask(d, pool, template, sampling) for d in drafts if d.state is DraftState.NEEDS_SOLUTION
    ]
    written = dict(bank.get(one.request.id for one in asked))
    missing = [one.request for one in asked if one.request.id not in written]
    with bank.writer(owner=owner) as writer:
        pool.submit(missing)
        while pool.pending():
            ended = pool.poll()
            _append_all(writer, ended)
            written.update((rollout.id, storable(rollout)) for rollout in ended)
            if progress is not None:
                progress(
                    Progress(
                        stage="complete solutions",
                        done=len(written),
                        total=len(asked),
                        unit="solutions",
                    )
                )
    return [_completed(one.draft, template, written[one.request.id]) for one in asked]


def _append_all(writer: RolloutWriter, rollouts: Iterable[Rollout]) -> None:
    """All of them before any refusal is told: they were paid for."""
    refusals = []
    for rollout in rollouts:
        try:
            writer.append(rollout)
        except (DataError, StoreError) as refusal:
            refusals.append(refusal)
    if refusals:
        raise refusals[0]


def _ask(d: Draft, pool: Pool, template: Prompt, sampling: Sampling) -> _Asked:
    question = template.render(d.raw.problem.statement, pool.tokenizer)
    request = RolloutRequest(
        problem_id=d.raw.id,
        problem_digest=digest([d.raw.problem.digest, d.thought]),
        prompt=completion_request(template, question, d.thought),
        prompt_digest=digest([template.digest(pool.tokenizer), "solution"]),
        policy_digest=pool.policy_digest,
        policy_version=pool.policy_version,
        sampling=sampling,
        sample_index=0,
        seed=0,
        engine_build=pool.engine_build,
    )
    return _Asked(draft=d, request=request)


def _completed(d: Draft, template: Prompt, rollout: Rollout) -> Draft:
    thought = Unified(style=Style(d.style), thought=d.thought, needs_solution=True)
    whole = complete(
        thought,
        rollout.text,
        closing=template.markup.marks()[-1],
        truncated=rollout.finish_reason.is_truncated(),
    )
    written = replace(draft_of(d.raw, whole), solution_rollout_id=rollout.id)
    if written.state is DraftState.NEEDS_SOLUTION:
        return replace(written, state=DraftState.DEFECTIVE, defect=str(DefectKind.EMPTY_SOLUTION))
    return written
