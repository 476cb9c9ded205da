"""`still store`: what the object store holds, and what can go."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot

LEAST_AGE_HOURS = 12.0
"""A writer trusts that a file younger than this stays."""


def ls(
    prefix: Annotated[str, Parameter(help="First letters of the names asked for.")] = "",
    /,
    *,
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """List published versions, one line each: size, when it was published, name@version."""
    from still_core.store import Store

    for found in sorted(Store(store).manifests(prefix), key=lambda m: (m.name, m.version)):
        when = "" if found.created_at is None else f"{found.created_at:%Y-%m-%d %H:%M}"
        print(f"{_mib(found.size):>13}  {when:16}  {found.name}@{found.version}")


def gc(
    *,
    store: StoreRoot = DEFAULT_STORE,
    yes: Annotated[bool, Parameter(help="Do it; without it, only name it.")] = False,
    min_age_hours: Annotated[
        float, Parameter(help="Spare files younger than this: a writer may still need them.")
    ] = 24.0,
    idle: Annotated[
        bool, Parameter(help="No run uses this store now; only then may younger ones go.")
    ] = False,
) -> None:
    """Remove checkpoints of published models, files that nothing lists, and what dead writers left.

    No other published version is removed.
    """
    from still_core.errors import ConfigError, explain
    from still_core.store import Store
    from still_core.train.checkpoint import checkpoints_of_published

    least = 0.0 if idle or not yes else LEAST_AGE_HOURS
    if not min_age_hours >= least:
        raise ConfigError(
            explain(
                "--min-age-hours",
                got=min_age_hours,
                expected=f"{least:g} or more",
                remedy="add --idle once no run writes to this store",
            )
        )
    root = Store(store)
    doomed = set(checkpoints_of_published(root))
    keep = [handle for handle in root.list() if handle not in doomed]
    report = root.gc(keep=keep, dry_run=not yes, min_age_s=min_age_hours * 3600)
    for line in report.lines():
        print(line)
    print(
        f"{len(report.manifests)} versions, {len(report.objects)} files "
        f"({_mib(report.num_bytes)}) and {len(report.unfinished)} unfinished writes; "
        f"{report.too_young} files younger than {min_age_hours:g} h are spared"
    )
    if not yes:
        print("nothing was changed; add --yes", file=sys.stderr)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.2f} MiB"
