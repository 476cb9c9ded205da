"""Which models stay: the best by evaluation, the newest, and those that nobody evaluated.

evaluations in the store -> score by model digest -> versions of one name -> what stays, what may go
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from still_core.errors import ConfigError, explain
from still_core.evaluate.answers import EvaluatedAnswer, score
from still_core.store import Manifest, Store
from still_core.store.lineage import parents
from still_core.store.retention import checkpoints_to_keep

EVALUATIONS = "evaluate-model"


class RankedModel(NamedTuple):
    """One published version of a model."""

    manifest: Manifest
    accuracy: float | None
    """Share of benchmark problems solved in its newest evaluation, in [0, 1]; None without one."""
    stays: bool


def ranked_models(store: Store, name: str, *, best: int, newest: int) -> list[RankedModel]:
    """All versions published as `name`, oldest first, with what retention says of each.

    Args:
        store: where the models and their evaluations are.
        name: of the models, e.g. `train-model`.
        best: how many stay by accuracy, >= 0; of equal ones the later.
        newest: how many of the latest stay, >= 1.

    Raises:
        ConfigError: a count is out of range, or nothing is published as `name`.
    """
    found = [manifest for manifest in store.manifests(name) if manifest.name == name]
    if not found:
        raise ConfigError(
            explain("no models of this name", got=name, remedy="see `still store ls`")
        )
    accuracies = _accuracies(store, {manifest.digest for manifest in found})
    scored = [
        replace(
            manifest,
            meta={"step": _published(manifest), "score": accuracies.get(manifest.digest)},
        )
        for manifest in sorted(found, key=_published)
    ]
    kept = {manifest.version for manifest in checkpoints_to_keep(scored, best=best, newest=newest)}
    return [
        RankedModel(manifest, accuracy, accuracy is None or manifest.version in kept)
        for manifest in scored
        for accuracy in [manifest.meta["score"]]
    ]


def _accuracies(store: Store, models: set[str]) -> dict[str, float]:
    """By digest of the model that the newest evaluation names among its parents."""
    newest: dict[str, Manifest] = {}
    evaluations = (m for m in store.manifests(EVALUATIONS) if m.name == EVALUATIONS)
    for evaluation in sorted(evaluations, key=_published):
        newest |= dict.fromkeys(models.intersection(parents(evaluation)), evaluation)
    found = {}
    for model, evaluation in newest.items():
        rows = store.read_rows(store.handle_of(evaluation))
        if rows:  # a recipe may name no benchmark
            found[model] = score([EvaluatedAnswer.from_row(row) for row in rows]).accuracy
    return found


def _published(manifest: Manifest) -> float:
    return 0.0 if manifest.created_at is None else manifest.created_at.timestamp()
