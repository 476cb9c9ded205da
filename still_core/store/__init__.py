"""The object store: content-addressed objects, manifests last, handles instead of payloads."""

from still_core.store.crashpoint import crashpoint
from still_core.store.garbage import GarbageReport
from still_core.store.handle import Handle
from still_core.store.lease import Lease
from still_core.store.manifest import Manifest, ObjectRef
from still_core.store.retry import RetryPolicy
from still_core.store.store import Store

__all__ = [
    "GarbageReport",
    "Handle",
    "Lease",
    "Manifest",
    "ObjectRef",
    "RetryPolicy",
    "Store",
    "crashpoint",
]
