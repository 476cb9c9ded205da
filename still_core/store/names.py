"""Names that may become keys and paths: checked here, before they touch a disk or a bucket."""

from __future__ import annotations

import re

from still_core.errors import ConfigError, DataError, explain

MAX_SEGMENT = 128
MAX_NAME = 512

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+@,~-]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def check_name(name: str, *, what: str = "name") -> str:
    """`name` itself: segments of letters, digits and `_.=+@,~-`, joined by `/`.

    Raises:
        ConfigError: anything that could leave its folder, hide, or collide with a manifest file.
    """
    segments = name.split("/")
    good = len(name) <= MAX_NAME and all(
        _SEGMENT.match(part) and len(part) <= MAX_SEGMENT and not part.endswith(".json")
        for part in segments
    )
    if not good:
        raise ConfigError(
            explain(
                f"unusable {what} in the store",
                got=name,
                expected=f"segments of A-Za-z0-9_.=+@,~- joined by '/', at most {MAX_NAME} long",
            )
        )
    return name


def check_version(version: str) -> str:
    """`version` itself: one segment of a name.

    Raises:
        ConfigError: see `check_name`; a `/` is refused too.
    """
    if "/" in version:
        raise ConfigError(explain("a version is one segment", got=version, remedy="drop the '/'"))
    return check_name(version, what="version")


def check_relpaths(relpaths: list[str]) -> None:
    """Paths of files inside an artefact: relative, normal, none a folder of another.

    Raises:
        DataError: a path that is absolute, climbs (`..`), holds control characters or backslashes,
            or needs another one to be both file and folder.
    """
    known = set(relpaths)
    for relpath in relpaths:
        parts = relpath.split("/")
        bad = (
            not relpath
            or len(relpath) > MAX_NAME
            or _CONTROL.search(relpath)
            or any(part in ("", ".", "..") for part in parts)
        )
        if bad:
            raise DataError(explain("unsafe file path in an artefact", got=relpath))
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in known:
                raise DataError(
                    explain("a path is both file and folder", got="/".join(parts[:depth]))
                )
