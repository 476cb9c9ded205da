"""Live teachers: an OpenAI-compatible endpoint or a local model, asked through the rollout engines.

problems -> sample n responses each, bank first -> raw responses

A run that was cut goes on where it stopped: responses in the bank are not asked for again. An
endpoint's responses are known by the name of its model: a server that changes what it serves under
a name needs another name in the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from still_core.errors import ConfigError, explain
from still_core.identity import digest
from still_core.problems.problem import Problem
from still_core.problems.raw import RawResponse
from still_core.progress import ProgressListener
from still_core.refine.recipe import DistilRecipe, Teacher
from still_core.rollout.recipe import EngineRecipe, RolloutResources
from still_core.rollout.rollout import Sampling
from still_core.rollout.sample import sample
from still_core.rollout.search import Bank, Pool, PromptTemplate, Verifier

if TYPE_CHECKING:
    from still_core.rollout.pool import RolloutPool


def endpoint_pool(teacher: Teacher, resources: RolloutResources) -> RolloutPool:
    """One actor that asks the endpoint: it needs no GPU, and alone it keeps the rate limit.

    Args:
        teacher: of kind `endpoint`; `source` is the model's name there.
        resources: `endpoint`, `max_num_seqs` requests at once, `requests_per_minute`.

    Raises:
        ConfigError: the address is missing.
    """
    from still_core.rollout.pool import RolloutPool

    check_endpoint(teacher, resources)
    return RolloutPool(
        "",
        EngineRecipe(kind="openai", model=teacher.source, api="chat"),
        resources.model_copy(update={"num_actors": 1, "gpus_per_actor": 0.0}),
        policy_digest=digest(["endpoint", teacher.source]),
    )


def check_endpoint(teacher: Teacher, resources: RolloutResources) -> None:
    """Refuse a teacher of kind `endpoint` without an address.

    Raises:
        ConfigError: `resources.endpoint` is missing.
    """
    if not resources.endpoint:
        raise ConfigError(
            explain(
                f"teacher {teacher.name!r} needs an endpoint",
                got=resources.endpoint,
                expected="an address",
                remedy="set --resource rollout.endpoint=http://.../v1",
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """The statement alone, as one user message: an endpoint applies its own chat template."""

    def render(self, problem_statement: str, tokenizer: Any) -> str:
        """The statement."""
        return problem_statement

    def digest(self, tokenizer: Any) -> str:
        """Identity of this way to ask."""
        return digest(["question", 1])


def draw_responses(
    teacher: Teacher,
    distil: DistilRecipe,
    problems: Sequence[Problem],
    pool: Pool,
    bank: Bank,
    verifier: Verifier,
    *,
    prompt: str | PromptTemplate,
    seed: int,
    progress: ProgressListener | None = None,
) -> list[RawResponse]:
    """Several responses per problem, as if read from the teacher's file.

    Args:
        teacher: of kind `endpoint` or `local`.
        distil: sampling of live teachers.
        problems: the run's problems; those of the teacher's sources are asked.
        pool: hosts the teacher.
        bank: read first, then given every response.
        verifier: judges responses as they end; unification judges them again, split.
        prompt: how to ask.
        seed: recipe seed.
        progress: told while responses arrive.
    """
    asked = [p for p in problems if not teacher.problems or p.source in teacher.problems]
    result = sample(
        asked,
        pool,
        bank,
        verifier,
        Sampling(temperature=distil.temperature, top_p=distil.top_p, max_tokens=distil.max_tokens),
        num_samples=teacher.responses_per_problem,
        seed=seed,
        prompt=prompt,
        owner=f"teacher/{teacher.name}",
        stage=f"ask {teacher.name}",
        progress=progress,
    )
    return [
        RawResponse(
            id=f"{group.problem.id}#{teacher.name}-{rollout.sample_index}",
            problem=group.problem,
            text=rollout.text,
            teacher=teacher.name,
            source_file=f"bank:{rollout.id}",
            row=rollout.sample_index,
            finish_reason=str(rollout.finish_reason),
        )
        for group in result.groups
        for rollout in group.rollouts
    ]
