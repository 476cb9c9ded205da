"""Garbage collection: names what nothing keeps, and removes it only when told to.

Manifests go first and objects after, so that no reader meets a manifest without its files. An
object younger than `min_age_s` stays: its writer may be about to publish the manifest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from still_core.store.backend import Backend
from still_core.store.crashpoint import crashpoint
from still_core.store.handle import Handle
from still_core.store.manifest import Manifest, manifest_key

MIN_AGE_S = 24 * 3600.0
REUSED_FOR_S = 11 * 3600.0
"""A writer lists an object that stands without writing it up to this age. The least age that
`still store gc` takes is 12 h: whoever relied on the object has an hour to publish."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GarbageReport:
    """What a collection removed, or would remove."""

    manifests: tuple[str, ...]
    """Keys of published versions that nobody keeps."""
    objects: tuple[str, ...]
    """Keys of files that no kept manifest lists."""
    unfinished: tuple[str, ...]
    """Staged files and uploads of writers that died."""
    num_bytes: int
    """Size of `objects`."""
    too_young: int
    """Objects spared because a writer may still be at work."""
    removed: bool
    """False for a dry run."""

    def lines(self) -> list[str]:
        """One line per thing, for people."""
        verb = "removed" if self.removed else "would remove"
        return [f"{verb} {key}" for key in (*self.manifests, *self.objects, *self.unfinished)]


def collect_garbage(
    backend: Backend,
    manifests: Iterable[Manifest],
    keep: Iterable[Handle],
    *,
    dry_run: bool,
    min_age_s: float,
) -> GarbageReport:
    """Remove versions outside `keep`, then files that no kept version lists.

    Args:
        backend: where.
        manifests: all that the store holds now.
        keep: what stays.
        dry_run: only name.
        min_age_s: spare versions, objects and unfinished writes younger than this, by the back
            end's clock; only to name them, by this machine's.
    """
    kept_keys = {manifest_key(handle.name, handle.version) for handle in keep}
    # The back end tells its time by writing a file, and naming is to change nothing.
    now = time.time() if dry_run else backend.now()
    doomed: list[str] = []
    needed: set[str] = set()
    for manifest in manifests:
        key = manifest_key(manifest.name, manifest.version)
        born = now if manifest.created_at is None else manifest.created_at.timestamp()
        # Published since `keep` was listed, perhaps. A server's clock may run in whole seconds.
        young = min_age_s > 0 and now - born < min_age_s
        if key in kept_keys or young:
            needed.update(ref.key for ref in manifest.objects.values())
        else:
            doomed.append(key)
    crashpoint("before-sweep")
    if not dry_run:
        for key in doomed:
            backend.delete(key)
    crashpoint("mid-sweep")
    orphans, num_bytes, too_young = [], 0, 0
    for stat in backend.scan("objects/"):
        if stat.key in needed:
            continue
        if now - stat.modified < min_age_s:
            too_young += 1
            continue
        if not dry_run:
            # A run that was resumed writes old objects anew before it publishes them. Nothing
            # stands between this look and the removal: a writer looks again after publishing.
            again = backend.stat(stat.key)
            if again is not None and now - again.modified < min_age_s:
                too_young += 1
                continue
            backend.delete(stat.key)
        orphans.append(stat.key)
        num_bytes += stat.size
    return GarbageReport(
        manifests=tuple(doomed),
        objects=tuple(orphans),
        unfinished=tuple(backend.sweep_unfinished(older_than_s=min_age_s, dry_run=dry_run)),
        num_bytes=num_bytes,
        too_young=too_young,
        removed=not dry_run,
    )
