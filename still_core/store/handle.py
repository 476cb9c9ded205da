"""A handle: the small frozen name of something in the store. Tasks pass handles, never payloads."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Handle:
    """(name, version, uri, digest) of one published artefact.

    `digest` is the sha256 of the manifest's content part: equal digests mean equal bytes.
    `uri` is the manifest's place and no part of identity.
    """

    name: str
    version: str
    uri: str
    digest: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON object."""
        return asdict(self)
