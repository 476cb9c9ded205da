"""`still store`: what the object store holds, and what can go."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot, open_store

LEAST_AGE_HOURS = 12.0
"""A writer trusts that a file younger than this stays."""


def ls(
    prefix: Annotated[str, Parameter(help="First letters of the names asked for.")] = "",
    /,
    *,
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """List published versions, one line each: size, when it was published, name@version."""
    survey = open_store(store).survey(prefix)
    for found in sorted(survey.manifests, key=lambda m: (m.name, m.version)):
        when = "" if found.created_at is None else f"{found.created_at:%Y-%m-%d %H:%M}"
        print(f"{_mib(found.size):>13}  {when:16}  {found.name}@{found.version}")
    for why in survey.damaged.values():
        print(f"damaged: {why}", file=sys.stderr)


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
    """Remove checkpoints of published models, unlisted files and what dead writers left.

    Without `--yes` it names them and removes nothing. No other published version is removed,
    and nothing at all while a manifest is damaged: what it lists can not be known.
    """
    from still_core.errors import ConfigError, explain
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
    root = open_store(store)
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


def quarantine(
    *,
    store: StoreRoot = DEFAULT_STORE,
    yes: Annotated[bool, Parameter(help="Do it; without it, only name it.")] = False,
) -> None:
    """Set damaged manifests aside, or name them; the next run publishes their versions anew.

    Their bytes stay in `manifests-damaged`. Files that only they list go with a later gc.
    """
    root = open_store(store)
    damaged = root.survey().damaged
    for key, why in damaged.items():
        if not yes:
            print(f"damaged: {why}")
        elif root.quarantine(key):
            print(f"set aside {key}")
    if not damaged:
        print("no manifest is damaged")
    elif not yes:
        print("nothing was changed; add --yes", file=sys.stderr)


def retain(
    name: Annotated[str, Parameter(help="Of the models, e.g. train-model.")],
    /,
    *,
    best: Annotated[int, Parameter(help="How many stay by accuracy.")],
    newest: Annotated[int, Parameter(help="How many of the latest stay.")] = 1,
    store: StoreRoot = DEFAULT_STORE,
    yes: Annotated[bool, Parameter(help="Do it; without it, only name it.")] = False,
) -> None:
    """Forget the models of a name but the best by evaluation and the newest, or name them.

    A model's accuracy is that of its newest evaluation in the store, all benchmark problems alike.
    One that was never evaluated stays. Their files go with a later gc.
    """
    from still_core.evaluate.retention import ranked_models

    root = open_store(store)
    models = ranked_models(root, name, best=best, newest=newest)
    for model in models:
        accuracy = "not evaluated" if model.accuracy is None else f"{model.accuracy:.1%}"
        word = "keep" if model.stays else "forget"
        print(f"{word:6}  {accuracy:>13}  {name}@{model.manifest.version}")
    doomed = [root.handle_of(model.manifest) for model in models if not model.stays]
    if not yes:
        print("nothing was changed; add --yes", file=sys.stderr)
    elif spared := len(doomed) - len(root.forget(doomed)):
        print(f"{spared} of them stay: a pointer leads there", file=sys.stderr)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.2f} MiB"
