"""Lucky guesses: is every step of a thought right, or only its answer?

STILL-2 keeps a response whose answer is right. In the miniature the right steps are known, so the
report can say how often a wrong thought reached a right answer.
"""

from __future__ import annotations

from still_core.errors import ConfigError
from still_core.miniature.problems import Question, parse
from still_core.problems.problem import Problem
from still_core.responses.format import classify, split_steps
from still_core.responses.response import Response


def thought_is_sound(problem: Problem, response: Response | str) -> bool:
    """Whether the thought holds exactly the right steps, in order.

    Args:
        problem: one of the miniature's.
        response: parsed, or a rollout's whole text; a text that is no response is not sound.
    """
    parsed = classify(response) if isinstance(response, str) else response
    question = parse(problem.statement)
    return isinstance(parsed, Response) and _is_right(split_steps(parsed.thought), question)


def soundness(problem: Problem, response: Response) -> bool | None:
    """`thought_is_sound`, or None where nothing can be told: other problems."""
    try:
        question = parse(problem.statement)
    except (ConfigError, ValueError, IndexError):
        return None
    return _is_right(split_steps(response.thought), question)


def _is_right(steps: list[str], question: Question) -> bool:
    # A thought in the stream teacher's habit ends with the answer, boxed.
    boxed = f"\\boxed{{{question.answer()}}}"
    said = steps[:-1] if steps and steps[-1] == boxed else steps
    return said == question.steps()
