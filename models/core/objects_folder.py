"""Objects as files in a folder of this machine, or of a disk that several machines share."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from models.core.objects import (
    KEY,
    PREFIX,
    Method,
    NoObject,
    Store,
    StoreAway,
    Stored,
    Written,
    checked,
    local_link,
)
from settings import settings

PART = ".part-"  # how the name of a file begins that is still being written: no key looks like it
BLOCK = 256 * 1024  # bytes read at once


class Folder(Store):
    """Objects as files in a folder that belongs to the service alone (0700, files 0600).

    API and workers share it, through a common disk where they run on several hosts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, chunks: Iterable[bytes]) -> Written:
        """Write an object, as `Store.put` says."""
        path = self.root / checked(key)
        part = path.with_name(f"{PART}{uuid4().hex}")
        named_in = self._make_folders(path.parent)
        size, digest = 0, sha256()
        try:
            with open(part, "xb", opener=_private) as file:
                for chunk in chunks:
                    size += file.write(chunk)
                    digest.update(chunk)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        for folder in named_in:
            _sync(folder)
        return Written(size, digest.hexdigest())

    def _make_folders(self, folder: Path) -> list[Path]:
        """Make what is missing; all folders that got a name by it, and `folder`, which will get one."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        named_in = [folder]
        for step in (folder.parent, folder):
            with suppress(FileExistsError):
                step.mkdir(mode=0o700)
                named_in.append(step.parent)
        return named_in

    def size(self, key: str) -> int:
        """The size of an object in bytes. Raises NoObject."""
        with _explained():
            found = (self.root / checked(key)).lstat()
        if not stat.S_ISREG(found.st_mode):  # a link is no object of ours, wherever it leads
            raise NoObject
        return found.st_size

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of an object, as `Store.read` says."""
        path = self.root / checked(key)
        with _explained():
            file = open(path, "rb", opener=_private)  # noqa: SIM115 (whoever reads the chunks closes it)
        return _blocks(file, start, end)

    def delete(self, key: str) -> None:
        """Delete an object. One that is not there is deleted already."""
        path = self.root / checked(key)
        with _explained(), suppress(FileNotFoundError):
            path.unlink()
            _sync(path.parent)

    def listed(self, prefix: str) -> Iterator[Stored]:
        """The objects under a prefix, by key."""
        for path in self._files(prefix):
            key = path.relative_to(self.root).as_posix()
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                found = path.lstat()
                if KEY.fullmatch(key) and stat.S_ISREG(found.st_mode):
                    yield Stored(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _files(self, prefix: str) -> Iterator[Path]:
        """What lies two folders below the root, under this prefix."""
        if not PREFIX.fullmatch(prefix):
            raise ValueError("not the beginning of keys")
        with _explained(), suppress(NoObject):
            top = self.root / prefix
            folders = [top] if "/" in prefix else sorted(top.iterdir()) if top.is_dir() else []
            for folder in folders:
                if folder.is_dir() and not folder.is_symlink():
                    yield from sorted(folder.iterdir())

    def link(self, method: Method, key: str, now: datetime, seconds: int, length: int | None = None) -> str:
        """A signed link, as `Store.link` says."""
        return local_link(method, key, now, seconds, length)

    def sweep_parts(self, area: str, before: datetime) -> int:
        """Delete what killed puts left before a time; return how many files that were."""
        count = 0
        for path in self._files(area):
            with suppress(FileNotFoundError):
                if path.name.startswith(PART) and path.lstat().st_mtime < before.timestamp():
                    path.unlink()
                    count += 1
        return count


def _private(path: str, flags: int) -> int:
    """Open a file for this account alone; the last step of its path is no symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _sync(folder: Path) -> None:
    """Have the disk know the names in a folder: a file's own fsync does not see to them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NoObject from None
    except OSError as error:
        raise StoreAway(error.strerror or type(error).__name__) from None


def _blocks(file: IO[bytes], start: int, end: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        rest = BLOCK if end is None else end - start
        while rest > 0 and (block := file.read(min(BLOCK, rest))):
            yield block
            rest -= len(block) if end is not None else 0


def of_settings() -> Folder:
    """The folder that KAIROS_STORE names."""
    return Folder(Path(unquote(urlsplit(settings().store).path)))
