"""Evaluate: a model's verified answers to every benchmark."""

from __future__ import annotations

from collections.abc import Iterator

from still_core.evaluate.recipe import EvaluateRecipe
from still_core.recipes.recipe import Resources
from still_core.report.text import cell, fenced
from still_core.rollout.recipe import EngineRecipe
from still_core.store import Handle, Store
from still_core.verify.answer import VERIFIER_VERSION
from still_core.verify.recipe import VerifyRecipe
from tasks.artifacts import Shown, markdown, table
from tasks.listening import listener
from tasks.stage import stage


def show_answers(store: Store, answers: Handle) -> Iterator[Shown]:
    """Accuracy per benchmark, and a few answers to read."""
    from still_core.evaluate.answers import EvaluatedAnswer, score_benchmarks

    rows = [EvaluatedAnswer.from_row(row) for row in store.read_rows(answers)]
    scores = [
        {"benchmark": name, "accuracy": s.accuracy, "low": s.low, "high": s.high, "n": s.n}
        for name, s in score_benchmarks(rows).items()
    ]
    yield table("accuracy", scores, "Accuracy per benchmark with 95 % interval")
    samples = [
        next((a for a in rows if a.outcome == o), None) for o in ("correct", "wrong", "no_answer")
    ]
    text = "\n\n".join(
        f"**{cell(a.benchmark)} {cell(a.problem_id)}: {a.outcome}** (gold {cell(a.gold, 80)})\n\n"
        f"{fenced(a.statement)}\n\n{fenced(a.text)}"
        for a in samples
        if a is not None
    )
    yield markdown("sample-answers", text or "no answers", "Answers to read")


@stage(version="2026.11.21", uses=(VERIFIER_VERSION,), show=show_answers)
def evaluate_model(
    store: Store,
    version: str,
    *,
    model: Handle,
    problems: Handle,
    evaluate: EvaluateRecipe,
    engine: EngineRecipe,
    verify: VerifyRecipe,
    prompt: str,
    seed: int,
    policy_version: int,
    resources: Resources,
    run: str,
) -> Handle:
    """Sample, verify and store the model's answers to the benchmarks that the recipe selects."""
    from still_core.evaluate.run import evaluate_benchmarks
    from still_core.miniature.soundness import soundness
    from still_core.problems.tables import read_benchmarks
    from still_core.rollout.bank import RolloutBank
    from tasks.engines import rollout_pool, verifier_pool

    benchmarks = [b for b in read_benchmarks(store, problems) if evaluate.selects(b.name)]
    with verifier_pool(verify, resources) as verifier:
        answers = evaluate_benchmarks(
            benchmarks,
            pool=rollout_pool(store, model, engine, resources, policy_version=policy_version),
            bank=RolloutBank(store),
            verifier=verifier,
            recipe=evaluate,
            prompt=prompt,
            seed=seed,
            thought_check=soundness,
            progress=listener(store, run),
        )
    return store.publish_table("evaluate-model", version, [answer.to_row() for answer in answers])
