"""Parameters that several commands share."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

DEFAULT_STORE = ".still/store"
StoreRoot = Annotated[
    str,
    Parameter(
        env_var="STILL_STORE", help="Root of the object store: a folder or s3://bucket/prefix."
    ),
]
