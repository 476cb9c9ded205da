"""A local cache of objects and of unpacked artefacts; whatever it serves is verified.

Processes of one machine share it: ranks and engines that start together fetch a model once.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from still_core.store.crashpoint import crashpoint
from still_core.store.manifest import ObjectRef

logger = logging.getLogger(__name__)

READ_ONLY_FILE = 0o444
READ_ONLY_FOLDER = 0o555
TREE_MIN_AGE_S = 24 * 3600.0


class ReadCache:
    """Objects by sha256 and read-only folders by content digest, below one folder."""

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self._objects = root / "objects"
        self._trees = root / "trees"
        self._locks = root / "locks"
        self._limit_bytes = limit_bytes
        self._verified: set[str] = set()
        self._lock = threading.Lock()

    def path(self, ref: ObjectRef) -> Path:
        """Where the file of `ref` is kept, if it is."""
        return self._objects / ref.sha256

    def get(self, ref: ObjectRef) -> Path | None:
        """The file of `ref` if it is here and whole; a damaged one is dropped."""
        path = self._objects / ref.sha256
        if not path.is_file():
            return None
        if not is_whole(path, ref):
            path.unlink(missing_ok=True)
            return None
        _stamp(path)
        return path

    def put(self, ref: ObjectRef, write: Callable[[Path], None]) -> Path:
        """Keep what `write(path)` writes; the caller has verified it inside `write`.

        Where another process has just done so, nothing is written.
        """
        self._objects.mkdir(parents=True, exist_ok=True)
        staged = self._objects / f".{uuid.uuid4().hex}"
        with self._alone(f"object-{ref.sha256[:3]}"):
            found = self.get(ref)
            if found is not None:
                return found
            try:
                write(staged)
                staged.chmod(READ_ONLY_FILE)
                target = self._objects / ref.sha256
                os.replace(staged, target)
            finally:
                staged.unlink(missing_ok=True)
        self._trim()
        return target

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Of all processes of this machine only one is in the block; ends with its process."""
        self._locks.mkdir(parents=True, exist_ok=True)
        # Whoever may write the folder may lock in it: the umask decides.
        descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def tree(
        self,
        digest: str,
        objects: Mapping[str, ObjectRef],
        fetch: Callable[[ObjectRef, Path], None],
    ) -> Path:
        """A read-only folder with all files; built aside and renamed, so never partial.

        Args:
            digest: content digest, the folder's name.
            objects: files by path.
            fetch: writes one verified object to a new path.
        """
        target = self._trees / digest
        with self._lock, self._alone(f"tree-{digest[:3]}"):
            if target.is_dir():
                if digest in self._verified or _is_whole_tree(target, objects):
                    self._verified.add(digest)
                    _stamp(target)
                    return target
                _remove_tree(target)
            staged = self._trees / f".{uuid.uuid4().hex}"
            try:
                for relpath, ref in objects.items():
                    path = staged / relpath
                    path.parent.mkdir(parents=True, exist_ok=True)
                    fetch(ref, path)
                    if path.stat().st_mode & 0o222:
                        path.chmod(READ_ONLY_FILE)
                staged.mkdir(parents=True, exist_ok=True)
                crashpoint("mid-fetch")
                os.rename(staged, target)
                for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
                    folder.chmod(READ_ONLY_FOLDER)
            finally:
                if staged.exists():
                    _remove_tree(staged)
            self._verified.add(digest)
        return target

    def _trim(self) -> None:
        """Drop what was least recently used beyond the limit."""
        entries = []
        for entry in os.scandir(self._objects):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not entry.name.startswith("."):
                entries.append((found.st_mtime, found.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        if total > self._limit_bytes:
            self.drop_trees(older_than_s=TREE_MIN_AGE_S)
        for _, size, path in sorted(entries)[:-1]:
            if total <= self._limit_bytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= size

    def drop_trees(self, *, older_than_s: float, keep: Collection[str] = ()) -> None:
        """Remove folders that nobody fetched for so long: they share their bytes with objects.

        Args:
            older_than_s: since the last fetch.
            keep: digests whose folders stay.
        """
        for tree in list(self._trees.iterdir()) if self._trees.is_dir() else []:
            if tree.name not in keep and time.time() - tree.stat().st_mtime > older_than_s:
                _remove_tree(tree)


def _stamp(path: Path) -> None:
    """Note that it was used now."""
    try:
        os.utime(path)
    except PermissionError:
        # Another user's: it may be dropped earlier than its last use asks for, and fetched again.
        logger.debug("%s keeps its time of use: it is another user's", path)


def sha256_of(path: Path) -> str:
    """64 hex digits of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path, ref: ObjectRef) -> bool:
    """Whether a regular file has the size and sha256 of `ref`."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != ref.size:
        return False
    return sha256_of(path) == ref.sha256


def _is_whole_tree(folder: Path, objects: Mapping[str, ObjectRef]) -> bool:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found == set(objects) and all(
        is_whole(folder / relpath, ref) for relpath, ref in objects.items()
    )


def _remove_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)
