"""Exact and near duplicates by MinHash with checked Jaccard similarity.

texts -> shingle sets -> sketch of 120 minima -> 24 bands of 5 -> shared bucket -> exact Jaccard

Texts are visited in the order of their keys, and a text is dropped when it is near a kept one: the
result depends on the set of (key, text), not on the order of rows nor on the number of workers, and
every dropped text names the kept one that it repeats. At Jaccard 0.8 a pair shares a bucket with
probability 1 - (1 - 0.8**5)**24 = 0.99993; comparing exactly leaves no false duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from still_core.errors import DataError, explain
from still_core.refine.kernels import I64, U32, U64, band_keys, first_near, shingle_set

BANDS, ROWS = 24, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """One text that repeats another."""

    index: int
    """Place of the dropped text in the input."""
    of: int
    """Place of the kept text that it repeats."""
    jaccard: float
    """Exact similarity of their shingle sets, threshold to 1."""


def near_duplicates(
    texts: Sequence[str], keys: Sequence[str], *, threshold: float = 0.8, shingle_tokens: int = 5
) -> list[Duplicate]:
    """Find the texts that repeat another one, in the order of the input.

    Args:
        texts: what is compared.
        keys: one unique key per text; of two near texts the one with the lower key is kept.
        threshold: least Jaccard similarity of a duplicate, 0.5 to 1 (recall falls below 0.5).
        shingle_tokens: length of the shingles, in tokens.

    Raises:
        DataError: the keys are not unique, or not one per text.
    """
    shingles = [shingle_set(text, shingle_tokens) for text in texts]
    return near_duplicates_of_sets(shingles, keys, threshold=threshold)


def near_duplicates_of_sets(
    shingles: Sequence[U32], keys: Sequence[str], *, threshold: float
) -> list[Duplicate]:
    """The same for ready shingle sets (sorted, distinct); empty sets are never duplicates."""
    if len(keys) != len(shingles) or len(set(keys)) != len(keys):
        raise DataError(
            explain(
                "duplicate search needs one unique key per text",
                got=f"{len(set(keys))} keys for {len(shingles)} texts",
            )
        )
    if not shingles:
        return []
    starts = np.zeros(len(shingles) + 1, np.int64)
    np.cumsum([len(s) for s in shingles], out=starts[1:])
    flat = np.concatenate(shingles)
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    bands = np.stack([sign_bands(one) for one in shingles])
    return search(flat, starts, order, bands, threshold=threshold)


def sign_bands(shingles: U32) -> U64:
    """[BANDS] keys of one shingle set: equal keys in a band mean five equal minima."""
    return band_keys(shingles, BANDS, ROWS)


def search(
    flat: U32,
    starts: I64,
    order: I64,
    bands: U64,
    *,
    threshold: float,
    owner: I64 | None = None,
    min_size: int = 0,
) -> list[Duplicate]:
    """Find duplicates among signed texts.

    Args:
        flat: all shingle sets one after the other; may be a memory map.
        starts: [texts + 1] where each set begins in `flat`.
        order: the texts to compare, in the order in which they claim to be kept.
        bands: [texts, BANDS] keys.
        threshold: least Jaccard similarity.
        owner: [texts] a number for what each text belongs to; by default all belong together.
        min_size: texts of fewer shingles repeat only texts of the same owner.
    """
    owner = np.zeros(len(bands), np.int64) if owner is None else owner
    distinct, buckets = np.unique(bands, return_inverse=True)
    band_of = buckets.reshape(bands.shape).astype(np.int64)
    near, similarity, _ = first_near(
        flat, starts, order, threshold, band_of, len(distinct), owner, min_size
    )
    return [
        Duplicate(index=int(i), of=int(near[i]), jaccard=float(similarity[i]))
        for i in np.flatnonzero(near >= 0)
    ]
