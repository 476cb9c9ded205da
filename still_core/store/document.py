"""Small JSON documents that carry their own checksum: manifests, pointers, leases."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from still_core.errors import CorruptionError, explain
from still_core.identity import canonical_json

SEAL = "sha256"


def seal(body: dict[str, Any]) -> bytes:
    """`body` as canonical JSON with the sha256 of itself; equal bodies give equal bytes."""
    checksum = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    text = json.dumps({**body, SEAL: checksum}, sort_keys=True, indent=1, ensure_ascii=True)
    return (text + "\n").encode()


def unseal(data: bytes, key: str) -> dict[str, Any]:
    """The inverse of `seal`.

    Raises:
        CorruptionError: not JSON, not an object, or not the bytes that were sealed.
    """
    try:
        read = json.loads(data)
        body: dict[str, Any] = read if isinstance(read, dict) else {}
        expected = body.pop(SEAL, None)
        found = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    except (ValueError, RecursionError):
        raise CorruptionError(explain(f"{key} is not readable JSON", got=data[:60])) from None
    if not isinstance(expected, str):
        raise CorruptionError(explain(f"{key} carries no {SEAL} of itself"))
    if found != expected:
        raise CorruptionError(explain(f"{key} is damaged: sha256", got=found, expected=expected))
    return body
