"""A local or shared folder as back end: temporary file, fsync, link; never a partial file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat as stat_bits
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from still_core.errors import ConfigError, MissingError, StoreError, explain
from still_core.store.backend import Stat, Tagged, system_failure
from still_core.store.cache import sha256_of
from still_core.store.crashpoint import crashpoint

READ_ONLY = 0o444
STAGING = ".staging"
LOCKS = ".locks"


class LocalBackend:
    """Keys are files below `root`; half-written files live in `.staging` and are never read."""

    is_local = True

    def __init__(self, root: str) -> None:
        try:
            self._path = Path(root).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigError(explain(f"no such home folder ({error})", got=root)) from error
        self.root = self._path.as_posix()
        self._known_folders: set[Path] = set()

    def check_writable(self) -> None:
        """Create the root and write, fsync and remove one small file."""
        if self._path.exists() and not self._path.is_dir():
            raise ConfigError(explain("the store's root is not a folder", got=self.root))
        staged = self._stage(b"probe")
        staged.unlink()

    def read(self, key: str) -> Tagged:
        """All bytes; a symbolic link or special file in the store is refused."""
        with self._open(key) as file:
            data = file.read()
            modified = os.fstat(file.fileno()).st_mtime
        return Tagged(data, hashlib.sha256(data).hexdigest(), modified)

    def download(self, key: str, target: Path) -> None:
        """Hard link where the file system allows it, else a copy."""
        source = self._path / key
        try:
            if source.is_symlink():
                raise StoreError(explain("a symbolic link stands in the store", got=key))
            os.link(source, target)
        except FileNotFoundError:
            raise MissingError(explain("not in the store", got=f"{self.root}/{key}")) from None
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise system_failure("can not fetch", key, error) from error
            try:
                shutil.copyfile(source, target, follow_symlinks=False)
            except OSError as failure:
                raise system_failure("can not copy", key, failure) from failure

    def stat(self, key: str) -> Stat | None:
        """Size and modification time of a regular file."""
        try:
            found = os.lstat(self._path / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise system_failure("can not look up", key, error) from error
        if not stat_bits.S_ISREG(found.st_mode):
            return None
        return Stat(key, found.st_size, found.st_mtime)

    def holds(self, key: str, source: bytes | Path, sha256: str) -> bool:
        """Whether the file that stands has this sha256: it is read in full."""
        path = self._path / key
        if self.stat(key) is None:
            return False
        try:
            return sha256_of(path) == sha256
        except FileNotFoundError:
            return False
        except OSError as error:
            raise system_failure("can not read", key, error) from error

    def put(self, key: str, source: bytes | Path) -> None:
        """Stage, fsync, then swing the name over in one step."""
        staged = self._stage(source)
        try:
            crashpoint("mid-object")
            target = self._path / key
            self._ensure_folder(target.parent)
            os.replace(staged, target)
            _fsync_folder(target.parent)
        except OSError as error:
            raise system_failure("can not write", key, error) from error
        finally:
            staged.unlink(missing_ok=True)

    def create(self, key: str, data: bytes) -> bool:
        """Stage, fsync, then link: the link fails where the name is taken."""
        staged = self._stage(data)
        try:
            crashpoint("mid-create")
            target = self._path / key
            self._ensure_folder(target.parent)
            try:
                os.link(staged, target)
            except FileExistsError:
                return self.read(key).data == data
            _fsync_folder(target.parent)
        except OSError as error:
            raise system_failure("can not write", key, error) from error
        finally:
            staged.unlink(missing_ok=True)
        return True

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        """Compare and swap under a lock that dies with its process."""
        with self._lock(key):
            try:
                current = self.read(key)
            except MissingError:
                return False
            if current.tag != tag:
                return current.data == data
            self.put(key, data)
        return True

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Walk the folder of `prefix`; staging and locks are left out."""
        folder, _, _ = prefix.rpartition("/")
        found = [
            stat
            for relative in _walk(self._path / folder, folder)
            if relative.startswith(prefix) and (stat := self.stat(relative)) is not None
        ]
        yield from sorted(found)

    def delete(self, key: str) -> None:
        """Remove the file and make the removal durable."""
        path = self._path / key
        try:
            path.unlink()
            _fsync_folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise system_failure("can not remove", key, error) from error

    def sweep_unfinished(self, *, older_than_s: float, dry_run: bool) -> list[str]:
        """Staged files of writers that died."""
        # Asking for its own time writes a file; naming is to change nothing.
        now, swept = time.time() if dry_run else self.now(), []
        for relative in sorted(_walk(self._path / STAGING, STAGING)):
            found = self.stat(relative)
            if found is None or now - found.modified < older_than_s:
                continue
            swept.append(relative)
            if not dry_run:
                (self._path / relative).unlink(missing_ok=True)
        return swept

    def now(self) -> float:
        """The file system's clock, which on a network share is the server's."""
        staged = self._stage(b"")
        try:
            return staged.stat().st_mtime
        finally:
            staged.unlink(missing_ok=True)

    def _open(self, key: str) -> BinaryIO:
        try:
            descriptor = os.open(self._path / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(explain("not in the store", got=f"{self.root}/{key}")) from None
        except OSError as error:
            raise system_failure("can not read", key, error) from error
        if not stat_bits.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreError(explain("not a regular file in the store", got=key))
        return os.fdopen(descriptor, "rb")

    def _stage(self, source: bytes | Path) -> Path:
        staged = self._path / STAGING / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            self._ensure_folder(staged.parent)
            if isinstance(source, Path):
                shutil.copyfile(source, staged)
            else:
                staged.write_bytes(source)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.chmod(READ_ONLY)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise system_failure("can not write in", self.root, error) from error
        return staged

    def _ensure_folder(self, folder: Path) -> None:
        """Create `folder` and make every new name on the way durable."""
        try:
            if folder in self._known_folders and folder.is_dir():
                return
            missing = []
            step = folder
            while not step.exists():
                missing.append(step)
                step = step.parent
            for step in reversed(missing):
                step.mkdir(exist_ok=True)
                _fsync_folder(step.parent)
        except OSError as error:
            raise system_failure("can not make the folder", folder.as_posix(), error) from error
        self._known_folders.add(folder)

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        folder = self._path / LOCKS
        self._ensure_folder(folder)
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            # Whoever may write the folder may lock in it: the umask decides.
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise system_failure("can not lock", key, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _walk(folder: Path, relative: str) -> Iterator[str]:
    """Relative paths of the regular files below `folder`; links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise system_failure("can not list", folder.as_posix(), error) from error
    for entry in entries:
        path = f"{relative}/{entry.name}" if relative else entry.name
        if path == LOCKS or (path == STAGING and relative == ""):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), path)
        elif entry.is_file(follow_symlinks=False):
            yield path


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
