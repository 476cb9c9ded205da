"""From an artefact back to what it was made of, and forward to all that came from it.

Follows `meta["parents"]`: the digests of the artefacts that went into a version. Damaged manifests
are left out, each with a warning in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from still_core.errors import ConfigError, explain
from still_core.store.handle import Handle
from still_core.store.manifest import Manifest
from still_core.store.store import Store


def ancestors(store: Store, handle: Handle) -> list[Manifest]:
    """All versions that `handle` was made of, directly or not, nearest first."""
    known = store.manifests(skip_damaged=True)
    by_digest: dict[str, list[Manifest]] = {}
    for manifest in known:
        by_digest.setdefault(manifest.digest, []).append(manifest)

    def step(manifest: Manifest) -> list[Manifest]:
        return [parent for digest in parents(manifest) for parent in by_digest.get(digest, [])]

    return _closure(store.manifest(handle), step)


def descendants(store: Store, handle: Handle) -> list[Manifest]:
    """All versions that were made from `handle`, directly or not, nearest first."""
    children: dict[str, list[Manifest]] = {}
    for manifest in store.manifests(skip_damaged=True):
        for digest in parents(manifest):
            children.setdefault(digest, []).append(manifest)
    return _closure(store.manifest(handle), lambda manifest: children.get(manifest.digest, []))


def find_artefact(store: Store, text: str) -> Handle:
    """The one artefact that `text` means: its name, name@version or digest, each may be cut short.

    Raises:
        ConfigError: none, or several; the line names some.
    """
    name, _, version = text.partition("@")
    near = store.manifests(name, skip_damaged=True)
    exact = [m for m in near if m.name == name and m.version.startswith(version)]
    found = exact or [
        manifest
        for manifest in store.manifests(skip_damaged=True)
        if manifest.digest.startswith(text)
        or f"{manifest.name}@{manifest.version}".startswith(text)
    ]
    if len({(m.name, m.version) for m in found}) == 1:
        return store.handle_of(found[0])
    some = sorted(f"{m.name}@{m.version}" for m in found or store.manifests(skip_damaged=True))[:6]
    raise ConfigError(
        explain(
            "no artefact by that name" if not found else f"{len(found)} artefacts go by that name",
            got=text,
            expected=f"one of {', '.join(some)}, ..." if some else "a store with artefacts",
        )
    )


def parents(manifest: Manifest) -> list[str]:
    """Digests of what the version was made of."""
    found = manifest.meta.get("parents", [])
    values: Iterable[object] = found.values() if isinstance(found, dict) else found
    return [str(value) for value in values]


def _closure(start: Manifest, step: Callable[[Manifest], list[Manifest]]) -> list[Manifest]:
    seen = {(start.name, start.version)}
    found: list[Manifest] = []
    frontier = [start]
    while frontier:
        reached = [near for manifest in frontier for near in step(manifest)]
        frontier = []
        for manifest in reached:
            if (manifest.name, manifest.version) not in seen:
                seen.add((manifest.name, manifest.version))
                frontier.append(manifest)
        found += frontier
    return found
