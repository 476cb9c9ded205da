"""The base of every recipe section: frozen, typed, unknown keys refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One stage's settings. Each room defines its own beside the code that reads it.

    Fields are identity: changing one re-runs the stages that read it. Settings that can not change
    a result (workers, paths, deadlines) live in `Resources` and are no part of it.
    Give every field a `Field(description=..., ge=..., le=...)`: the Prefect form shows them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
