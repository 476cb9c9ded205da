"""A manifest: the one file that makes an artefact exist. It lists every file by size and sha256."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from still_core.errors import CorruptionError, DataError, explain
from still_core.identity import canonical, digest
from still_core.store.document import seal, unseal
from still_core.store.names import check_relpaths

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRef:
    """One file of an artefact."""

    sha256: str
    size: int
    """Bytes, >= 0."""

    @property
    def key(self) -> str:
        """Where its bytes lie in the store."""
        return f"objects/{self.sha256}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a published version holds."""

    name: str
    version: str
    objects: dict[str, ObjectRef]
    """By path inside the artefact."""
    meta: dict[str, Any]
    created_at: datetime | None = None
    """The back end's time stamp, no part of the bytes: equal content gives equal manifests."""

    @property
    def digest(self) -> str:
        """sha256 over paths, sizes and sha256 of the files; not over name, version and meta."""
        return content_digest(self.objects)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(ref.size for ref in self.objects.values())

    def to_bytes(self) -> bytes:
        """Canonical, sealed JSON."""
        return seal(
            {
                "format": FORMAT,
                "name": self.name,
                "version": self.version,
                "digest": self.digest,
                "objects": canonical(self.objects),
                "meta": canonical(self.meta),
            }
        )


def content_digest(objects: Mapping[str, ObjectRef]) -> str:
    """64 hex digits; equal digests mean equal files under equal paths."""
    return digest({path: [ref.sha256, ref.size] for path, ref in objects.items()}, length=64)


def manifest_key(name: str, version: str) -> str:
    """Where the manifest of a version lies."""
    return f"manifests/{name}/{version}.json"


def parse_manifest(data: bytes, key: str, modified: float) -> Manifest:
    """Read a manifest as hostile input: its seal, its format, its paths, its place.

    Raises:
        CorruptionError: with the exact reason.
    """
    body = unseal(data, key)
    if body.get("format") != FORMAT:
        reason = explain(f"{key}: manifest format", got=body.get("format"), expected=FORMAT)
        raise CorruptionError(reason)
    try:
        objects = {str(path): _parse_ref(ref) for path, ref in body["objects"].items()}
        check_relpaths(list(objects))
        manifest = Manifest(
            name=str(body["name"]),
            version=str(body["version"]),
            objects=objects,
            meta=dict(body["meta"]),
            created_at=datetime.fromtimestamp(modified, UTC),
        )
    except (KeyError, TypeError, AttributeError, DataError) as error:
        raise CorruptionError(explain(f"{key}: not a manifest ({error})")) from error
    if manifest_key(manifest.name, manifest.version) != key:
        found = f"{manifest.name}@{manifest.version}"
        raise CorruptionError(explain(f"{key}: the manifest of something else", got=found))
    if body.get("digest") != manifest.digest:
        raise CorruptionError(explain(f"{key}: digest does not fit the files listed"))
    return manifest


def _parse_ref(ref: Any) -> ObjectRef:
    sha256, size = ref["sha256"], ref["size"]
    if not isinstance(sha256, str) or not _SHA256.match(sha256):
        raise TypeError(f"sha256 {sha256!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise TypeError(f"size {size!r}")
    return ObjectRef(sha256=sha256, size=size)
