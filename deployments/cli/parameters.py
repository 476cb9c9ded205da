"""Parameters that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from still_core.errors import ConfigError, explain

if TYPE_CHECKING:
    from still_core.store import Store

DEFAULT_STORE = ".still/store"
StoreRoot = Annotated[
    str,
    Parameter(
        env_var="STILL_STORE", help="Root of the object store: a folder or s3://bucket/prefix."
    ),
]
Changes = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set", help="Change one recipe field: section.key=value. Repeatable.", negative=""
    ),
]
ResourceChanges = Annotated[
    tuple[str, ...],
    Parameter(
        name="--resource",
        help="Change one resource: rollout.num_actors=4. No part of any result. Repeatable.",
        negative="",
    ),
]


def open_store(root: str) -> Store:
    """The store at `root` for a command that only looks: a folder of it must be there.

    Raises:
        ConfigError: it is not; a mistyped root would look like an empty store.
    """
    from still_core.store import Store

    store = Store(root)
    if store.backend.is_local and not Path(store.root).is_dir():
        raise ConfigError(
            explain(
                "no store there",
                got=root,
                expected="an existing folder or s3://bucket/prefix",
                remedy="fix --store or STILL_STORE; `still run` makes a new store",
            )
        )
    return store
