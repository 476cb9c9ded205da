"""Which checkpoints to keep: the best by score, the newest, and what is asked for by name."""

from __future__ import annotations

import math
from collections.abc import Iterable

from still_core.errors import ConfigError, explain
from still_core.store.manifest import Manifest


def checkpoints_to_keep(
    manifests: Iterable[Manifest],
    *,
    best: int,
    newest: int = 1,
    score: str = "score",
) -> list[Manifest]:
    """The `best` by `meta[score]` (higher is better) and the `newest` by `meta["step"]`.

    A checkpoint without a score, or with a score that is no finite number, is never among the best;
    equal scores go to the later step.

    Args:
        manifests: the checkpoints of one training job.
        best: how many to keep by score, >= 0.
        newest: how many of the latest to keep, >= 1: training resumes from them.
        score: name of the score in `meta`.

    Raises:
        ConfigError: a count is out of range.
    """
    if best < 0 or newest < 1:
        raise ConfigError(
            explain("retention", got=(best, newest), expected="best >= 0, newest >= 1")
        )
    by_step = sorted(manifests, key=lambda m: (_step(m), m.version))
    scored = [m for m in by_step if _score(m, score) is not None]
    ranked = sorted(scored, key=lambda m: (_score(m, score) or 0.0, _step(m)), reverse=True)
    kept = {(m.name, m.version) for m in [*by_step[-newest:], *ranked[:best]]}
    return [m for m in by_step if (m.name, m.version) in kept]


def _step(manifest: Manifest) -> float:
    step = manifest.meta.get("step", -1)
    return float(step) if isinstance(step, int | float) else -1.0


def _score(manifest: Manifest, name: str) -> float | None:
    value = manifest.meta.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
