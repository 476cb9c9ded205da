"""Labelled pairs of other graders and real models, for tests and benchmarks of the verifier."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from still_core.problems.problem import AnswerKind
from still_core.verify import Answer

LEFT_OUT = Path(__file__).with_name("verification_left_out.csv")
"""Rows whose label follows another convention than ours, one reason each."""

CASES = ("verify_cases_mathverify", "verify_cases_other_graders", "verify_cases_latex_parsers")
OUTPUTS = (
    "model_answers_math500_rasbt",
    "model_outputs_qwen_math_cot",
    "model_outputs_thinking_gsm8k",
    "model_outputs_thinking_math500",
    "model_outputs_tora_gsm8k",
    "model_outputs_mcq_gpqa_mmlu",
)
_KINDS = {"text": AnswerKind.TEXT, "mcq": AnswerKind.CHOICE, "mcq_extract": AnswerKind.CHOICE}


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRow:
    """One pair with the label that its source gives it."""

    file: str
    """File name, with `:response` where the whole response is judged instead of the answer."""
    row: int
    answer: Answer
    expected: bool
    baseline: bool | None
    """math-verify 0.9's verdict where the data have it."""


def left_out() -> dict[tuple[str, int], str]:
    """(file, row) to the reason why the row's label is not compared."""
    with LEFT_OUT.open(encoding="utf-8") as lines:
        return {(row["file"], int(row["row"])): row["reason"] for row in csv.DictReader(lines)}


def labelled_rows(data: Path) -> Iterator[LabelledRow]:
    """All pairs with a label, those left out included, disputed ones not."""
    for name in (*CASES, *OUTPUTS):
        with (data / f"{name}.jsonl").open(encoding="utf-8") as lines:
            for index, line in enumerate(lines):
                yield from _pairs(name, index, json.loads(line))


def _pairs(name: str, index: int, row: dict[str, object]) -> Iterator[LabelledRow]:
    expected = row.get("expected")
    gold = row["gold"]
    if not isinstance(expected, bool) or gold is None or row.get("disputed"):
        return
    kind = (
        AnswerKind.CHOICE if "mcq_" in name else _KINDS.get(str(row.get("kind")), AnswerKind.MATH)
    )
    if isinstance(gold, list):
        gold = ", ".join(gold) if name in OUTPUTS else gold[0]
    preds = {"": row.get("pred") or ""}
    for field in ("response", "response_tail"):
        if field in row:
            preds[":response"] = str(row[field])
    for suffix, pred in preds.items():
        yield LabelledRow(
            file=name + suffix,
            row=index,
            answer=Answer(id=f"{name}{suffix}:{index}", gold=str(gold), pred=str(pred), kind=kind),
            expected=expected,
            baseline=row.get("baseline_math_verify_0_9_0"),  # type: ignore[arg-type]
        )
