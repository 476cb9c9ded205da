"""Mathematics sources and benchmarks, each in the form its public files have."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from still_core.problems.fields import answer_text, at, first, number, optional_text, text
from still_core.problems.problem import AnswerKind, Bucket
from still_core.problems.rows import MalformedRow
from still_core.problems.sources.adapter import Context, FilteredRow, ProblemDraft, register
from still_core.problems.sources.choice import choices_of, gold_letters, lettered
from still_core.problems.sources.gold import boxed_gold, gsm8k_gold, required_gold

STATEMENT = ("problem", "Problem", "question", "Question")
SOLUTION = ("solution", "Solution")
ANSWER = ("answer", "Answer", "final_answer", "expected_answer")
NUMINA_SUBSETS = ("math", "olympiads")
"""The subsets that STILL-2 names (its section 2.2.1)."""
NUMINA_NORMAL = {"math", "gsm8k", "orca_math", "cn_k12", "synthetic_math", "metamath"}
AIME_LAST_YEAR = 2023
"""STILL-2 trains on AIME 1983-2023; 2024 and later are benchmarks."""


def competition(
    row: Any, *, bucket: Bucket = Bucket.HARD_MATH, level: float | None = None
) -> ProblemDraft:
    r"""A row of statement with an answer field, a worked solution that boxes it, or both."""
    statement = text(row, *STATEMENT)
    solution = first(row, *SOLUTION)
    worked = solution if isinstance(solution, str) else ""
    gold = required_gold(optional_text(row, *ANSWER), boxed_gold(worked))
    # Files of RUC's evaluation hold the bare box as "solution": that is a gold, not a solution.
    bare = worked.strip().startswith("\\boxed") and len(worked) < len(gold) + 12
    return ProblemDraft(
        statement=statement,
        gold=gold,
        bucket=bucket,
        level=number(row, "level", "difficulty") if level is None else level,
        solution="" if bare else worked.strip(),
    )


@register("numina", licence="Apache-2.0")
def numina(row: Any, context: Context) -> ProblemDraft:
    """NuminaMath: the `source` field names the subset."""
    source = text(row, "source")
    if not context.keeps(source, NUMINA_SUBSETS):
        raise FilteredRow("other_subset")
    if at(row, "question_type") == "proof" or at(row, "answer") == "proof":
        raise FilteredRow("proof")
    if at(row, "problem_is_valid") in ("No", "Incomplete", "Problem not solved"):
        raise FilteredRow("invalid_upstream")
    normal = source.lower() in NUMINA_NORMAL
    draft = competition(row, bucket=Bucket.NORMAL_MATH if normal else Bucket.HARD_MATH)
    if at(row, "question_type") == "MCQ":
        return _as_choice(draft)
    return draft


def _as_choice(draft: ProblemDraft) -> ProblemDraft:
    return replace(draft, kind=AnswerKind.CHOICE)


_YEAR = re.compile(r"(?:19|20)\d\d(?=\D|$)")
"""The year that an id such as `1999-II-3` begins with."""


@register("aime")
def aime(row: Any, context: Context) -> ProblemDraft:
    """AIME up to the spec's `year_max` (2023); later years are benchmarks and left out."""
    year = number(row, "year", "Year")
    if year is None and (named := _YEAR.match(optional_text(row, "ID", "id", "unique_id"))):
        year = float(named.group())
    if year is None:
        raise MalformedRow("missing_field", "year")
    if year > (context.spec.year_max or AIME_LAST_YEAR):
        raise FilteredRow("year")
    return competition(row)


@register("math", licence="MIT")
def math_train(row: Any, context: Context) -> ProblemDraft:
    """MATH train: normal mathematics."""
    return competition(row, bucket=Bucket.NORMAL_MATH)


@register("orz", licence="MIT")
def open_reasoner_zero(row: Any, context: Context) -> ProblemDraft:
    """Open-Reasoner-Zero: `[{from: human, value}, {from: assistant, ground_truth: {value}}]`."""
    turns = row if isinstance(row, list) else first(row, "conversations", "messages")
    if turns is None and isinstance(row, dict) and {"0", "1"} <= set(row):
        turns = [row["0"], row["1"]]
    if not isinstance(turns, list) or len(turns) < 2:
        raise MalformedRow("mistyped_field", "expected a list of two turns")
    return ProblemDraft(
        statement=text(turns[0], "value", "content"),
        gold=required_gold(optional_text(turns[1], "ground_truth.value", "ground_truth", "value")),
        bucket=Bucket.HARD_MATH,
        level=_failure_rate(turns[1]),
    )


def _failure_rate(turn: Any) -> float | None:
    """1 - pass rate where the publisher measured one."""
    rate = number(turn, "ground_truth.pass_at_n", "pass_at_n")
    return None if rate is None else 1.0 - rate


@register("gsm8k", licence="MIT")
def gsm8k(row: Any, context: Context) -> ProblemDraft:
    """GSM8K: grade-school word problems."""
    answer = text(row, "answer")
    gold = required_gold(gsm8k_gold(answer))
    return ProblemDraft(
        statement=text(row, "question"),
        gold=gold,
        bucket=Bucket.NORMAL_MATH,
        solution=answer.split("####")[0].strip(),
    )


_PROMPT_TAIL = re.compile(
    r"(?:\s*(?:Please reason step by step, and put your final answer within \\boxed\{\}\.?"
    r"|<\|\s*Assistant\s*\|>|<\uff5cAssistant\uff5c>|<\|im_end\|>))+\s*$"
)


@register("verl")
def verl(row: Any, context: Context) -> ProblemDraft:
    """Rows for verl; the instruction and the malformed `<| Assistant |>` tail are taken off."""
    statement = first(row, "extra_info.question", "prompt.0.content")
    turns = at(row, "prompt")
    if isinstance(turns, list) and turns:
        users = [turn for turn in turns if at(turn, "role") == "user"]
        statement = at((users or turns)[-1], "content")
    if not isinstance(statement, str):
        raise MalformedRow("missing_field", "prompt")
    return ProblemDraft(
        statement=text({"prompt": _without_tail(statement)}, "prompt"),
        gold=required_gold(optional_text(row, "reward_model.ground_truth")),
        bucket=Bucket.HARD_MATH,
        domain=optional_text(row, "ability") or "math",
    )


def _without_tail(prompt: str) -> str:
    """The prompt without instruction and header; only its end is searched, whatever its length."""
    body = prompt.rstrip()
    cut = max(0, len(body) - _LONGEST_TAIL)
    return body[:cut] + _PROMPT_TAIL.sub("", body[cut:])


_LONGEST_TAIL = 300


# -- benchmarks -------------------------------------------------------------------------------


@register("math-oai", licence="MIT")
def math_oai(row: Any, context: Context) -> ProblemDraft:
    """The 500 problems of MATH that OpenAI held out."""
    return competition(row, bucket=Bucket.NORMAL_MATH)


@register("aime24")
def aime24(row: Any, context: Context) -> ProblemDraft:
    """AIME 2024 in any of its public forms."""
    return competition(row)


@register("aime25")
def aime25(row: Any, context: Context) -> ProblemDraft:
    """AIME 2025 in any of its public forms."""
    return competition(row)


@register("omni-math", licence="Apache-2.0")
def omni_math(row: Any, context: Context) -> ProblemDraft:
    """Omni-MATH; `level` is its difficulty of 1 to 10."""
    return competition(row)


@register("liveaops")
def liveaops(row: Any, context: Context) -> ProblemDraft:
    """LiveAoPSBench: posts with dates, golds as the forum gave them."""
    answers = at(row, "answers")
    listed = answer_text(answers[0], "answers") if isinstance(answers, list) and answers else ""
    draft = competition({**row, "answer": first(row, "answer") or listed})
    return draft


@register("hmmt")
def hmmt(row: Any, context: Context) -> ProblemDraft:
    """HMMT; answers are often symbolic."""
    return competition(row)


@register("olymmath", licence="MIT")
def olymmath(row: Any, context: Context) -> ProblemDraft:
    """OlymMATH: level 1 for its EASY part, 2 for HARD, as `unique_id` or the file name says."""
    place = (optional_text(row, "unique_id") + context.stem + context.spec.path).lower()
    level = 1.0 if "easy" in place else 2.0 if "hard" in place else None
    return competition(row, level=level)


@register("amc23")
def amc23(row: Any, context: Context) -> ProblemDraft:
    """AMC 12 of 2023, with whole-number answers."""
    return competition(row)


@register("minerva")
def minerva(row: Any, context: Context) -> ProblemDraft:
    """Minerva Math: university science questions with a boxed answer in the solution."""
    return competition(row)


@register("olympiadbench", licence="MIT")
def olympiadbench(row: Any, context: Context) -> ProblemDraft:
    """OlympiadBench, text-only open-ended questions; pictures and proofs are left out."""
    if "multimodal" in optional_text(row, "modality").lower() or first(row, "image_1", "image"):
        raise FilteredRow("picture")
    if "proof" in optional_text(row, "question_type").lower():
        raise FilteredRow("proof")
    before = optional_text(row, "context")
    statement = text(row, "question")
    return ProblemDraft(
        statement=f"{before}\n\n{statement}" if before else statement,
        gold=required_gold(optional_text(row, "final_answer", "answer").strip("$")),
        domain="physics" if "phys" in optional_text(row, "subject").lower() else "math",
        bucket=Bucket.OTHER
        if "phys" in optional_text(row, "subject").lower()
        else Bucket.HARD_MATH,
        solution=_joined(at(row, "solution")),
    )


def _joined(solution: Any) -> str:
    if isinstance(solution, str):
        return solution
    if isinstance(solution, list):
        return "\n\n".join(item for item in solution if isinstance(item, str))
    return ""


@register("livemathbench")
def livemathbench(row: Any, context: Context) -> ProblemDraft:
    """LiveMathBench: CNMO, CCEE, AMC and WLPMC problems, English or Chinese."""
    return competition(row)


@register("ksat")
def ksat(row: Any, context: Context) -> ProblemDraft:
    """The Korean entrance exam; `level` is the points of the question (2-4) where given."""
    choices = choices_of(first(row, "choices", "options"))
    draft = competition(row, level=number(row, "score", "points", "point", "level"))
    if not choices:
        return draft
    return replace(
        draft,
        statement=lettered(draft.statement, choices),
        gold=gold_letters(draft.gold, choices),
        kind=AnswerKind.CHOICE,
        choices=choices,
    )
