"""Gate: no model trains on a benchmark's problems.

A stage of its own before each training: the gate decides whether a model may be trained, not what
comes out, so a new benchmark or a waiver holds the data against the gate again and trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from still_core.problems.recipe import DecontaminateRecipe
from still_core.store import Handle, Store
from tasks.artifacts import Shown, table
from tasks.stage import stage


def show_overlap(store: Store, passed: Handle) -> Iterator[Shown]:
    """What of each benchmark is in the training data."""
    yield table("overlap", store.read_rows(passed), "Overlap of the training data with benchmarks")


@stage(version="2026.11.22", show=show_overlap)
def gate_demonstrations(
    store: Store,
    version: str,
    *,
    demonstrations: Handle,
    fingerprints: Handle,
    gate: DecontaminateRecipe,
) -> Handle:
    """Refuse demonstrations that overlap with a benchmark; returns a row per benchmark."""
    from still_core.distil.dataset import read_demonstrations
    from still_core.distil.gate import require_uncontaminated

    rows = read_demonstrations(store, demonstrations)
    overlap = require_uncontaminated(store, rows, fingerprints, gate)
    return store.publish_table("gate-demonstrations", version, overlap.to_rows())


@stage(version="2026.11.22", show=show_overlap)
def gate_pairs(
    store: Store,
    version: str,
    *,
    pairs: Handle,
    fingerprints: Handle,
    gate: DecontaminateRecipe,
) -> Handle:
    """Refuse pairs on problems that overlap with a benchmark; returns a row per benchmark."""
    from still_core.distil.gate import require_uncontaminated
    from still_core.distil.preferences import read_pairs

    rows = [pair.chosen for pair in read_pairs(store, pairs)]
    overlap = require_uncontaminated(store, rows, fingerprints, gate)
    return store.publish_table("gate-pairs", version, overlap.to_rows())
