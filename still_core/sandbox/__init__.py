"""Isolation for model-written Python: namespaces, limits, a system call filter, a deadline.

    code -> Sandbox.run -> SandboxResult;  blocks -> Sandbox.session -> SandboxResult each

docs/explanations/isolation.md says what holds and what does not.
"""

from still_core.sandbox.bubblewrap import Backend
from still_core.sandbox.limits import Layer, Limits
from still_core.sandbox.result import SandboxResult, SandboxStatus
from still_core.sandbox.sandbox import Sandbox, SandboxSession

__all__ = [
    "Backend",
    "Layer",
    "Limits",
    "Sandbox",
    "SandboxResult",
    "SandboxSession",
    "SandboxStatus",
]
