"""What a source's path stands for at this moment: the identity that cached stages are found by.

    local file    -> digest of its content            (tasks.preflight)
    s3://... etc. -> name, size and ETag of each file  -> digest
    hf:org/name   -> the commit of its revision        -> "commit <sha>", which is also what is read

A hub data set that can not be reached is named by its newest version in the local cache of
`datasets`, which is also what will be read then; a revision given as a whole commit needs no hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from still_core.errors import ConfigError, explain
from still_core.identity import digest
from still_core.problems.recipe import ProblemsRecipe, SourceSpec
from still_core.problems.rows import hub_place, remote_files

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION_FACTS = ("ETag", "etag", "md5", "md5Hash", "VersionId", "version_id", "content_md5")
"""What object stores say of an object's content."""
_TIME_FACTS = ("mtime", "LastModified", "last_modified", "updated", "created")
_HUB_TIMEOUT_S = 10.0


def is_remote(path: str) -> bool:
    """Whether a path is no local file: an fsspec URI, a hub data set, or generated problems."""
    return "://" in path or path.startswith(("hf:", "miniature:"))


def remote_identity(path: str) -> str:
    """What a remote path stands for now; equal as long as its content is.

    Raises:
        ConfigError: nothing is there, or a hub data set is neither reachable nor in the cache.
        DataError: the place can not be read.
    """
    if path.startswith("miniature:"):
        return path
    if path.startswith("hf:"):
        place = hub_place(path)
        if Path(place.name).is_dir():
            # `datasets` reads a folder as it would read a hub name.
            return digest([_file_facts(p) for p in sorted(Path(place.name).rglob("*"))])
        return f"commit {hub_commit(place.name, place.config, place.revision)}"
    found, filesystem = remote_files(path)
    if not found:
        raise ConfigError(explain("no data there", got=path, remedy="fix the path"))
    return digest([[name, *_object_facts(filesystem.info(name))] for name in found])


def _file_facts(path: Path) -> list[Any]:
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _object_facts(info: Mapping[str, Any]) -> list[Any]:
    """Size, and the content's tag; the time of change where the store gives no tag."""
    tags = [str(info[key]).strip('"') for key in _VERSION_FACTS if info.get(key)]
    return [info.get("size"), *(tags or [str(info[k]) for k in _TIME_FACTS if info.get(k)])]


def hub_commit(name: str, config: str | None, revision: str | None) -> str:
    """The commit that a hub data set's revision stands for.

    Raises:
        ConfigError: the hub does not know it, or can not be reached and the cache has no version.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        found = api.dataset_info(name, revision=revision, timeout=_HUB_TIMEOUT_S).sha
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if isinstance(error, RepositoryNotFoundError) or 400 <= status < 500:
            raise ConfigError(
                explain(
                    f"the hub has no data set {name!r} for us",
                    got=f"HTTP {status}",
                    remedy="check name and revision; a gated one needs HF_TOKEN and its terms",
                )
            ) from None
        return _cached_commit(name, config, error)
    # What else its HTTP client raises has no common class; all of it means out of reach.
    except Exception as error:
        return _cached_commit(name, config, error)
    return found or _cached_commit(name, config, ValueError("the hub names no commit"))


def _cached_commit(name: str, config: str | None, cause: Exception) -> str:
    """The newest version of a data set in the local cache of `datasets`."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    *owner, own = name.split("/")
    folder = "___".join([*owner, camelcase_to_snakecase(own)])
    root = Path(datasets.config.HF_DATASETS_CACHE) / folder
    versions = [p for p in root.glob(f"{config or '*'}/*/*") if _COMMIT.fullmatch(p.name)]
    if not versions:
        raise ConfigError(
            explain(
                f"the hub can not be reached and the local cache has no {name!r}",
                got=str(cause)[:200],
                remedy="give the path a whole commit (revision=...), or load it once with a hub",
            )
        )
    return max(versions, key=lambda p: p.stat().st_mtime).name


def pinned(recipe: ProblemsRecipe, files: Mapping[str, str]) -> ProblemsRecipe:
    """The recipe with each hub path at the commit it was found at, so that this one is read."""
    benchmarks = tuple(
        one.model_copy(update={"source": _pinned_source(one.source, files)})
        for one in recipe.benchmarks
    )
    sources = tuple(_pinned_source(spec, files) for spec in recipe.sources)
    return recipe.model_copy(update={"sources": sources, "benchmarks": benchmarks})


def _pinned_source(spec: SourceSpec, files: Mapping[str, str]) -> SourceSpec:
    kind, _, commit = files.get(spec.path, "").partition(" ")
    if kind != "commit" or not spec.path.startswith("hf:"):
        return spec
    name, _, query = spec.path.partition("?")
    options = {**dict(parse_qsl(query)), "revision": commit}
    return spec.model_copy(update={"path": f"{name}?{urlencode(options, safe='/')}"})
