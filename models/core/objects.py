"""Objects: files of any size under keys, in a folder of this machine or in an S3 bucket (KAIROS_STORE).

Each object has a new key, `<area>/<study>/<32 hex>`; nothing is ever overwritten. The row that names a key
decides whether there is such an object for the service: it is written after the object, and deleted before
it. An object that no row names is an orphan, which `sweep` of its area deletes after a day.
"""

import errno
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

from settings import settings

KEY = re.compile(r"[a-z]{1,32}/[0-9A-Z]{1,32}/[0-9a-f]{32}")
PREFIX = re.compile(r"[a-z]{1,32}(/[0-9A-Z]{1,32})?")
ORPHAN_AGE = timedelta(days=1)  # far longer than any put takes: until then the row may still come
SWEPT_AT_ONCE = 1000  # keys whose rows are looked up in one statement
LONGEST_LINK = 7 * 24 * 3600  # seconds: S3 allows no more
LINK = b"kairos storage link 1"  # sets keys of links apart from all else that the signing keys sign
Method = Literal["GET", "PUT"]


class NoObject(FileNotFoundError):
    """There is no object under this key."""

    def __init__(self) -> None:
        super().__init__(errno.ENOENT, "there is no such object in the store")


class StoreAway(OSError):
    """The store cannot be reached, or does not do what it is asked for; it may do so later."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, f"the object store cannot be used: {reason}")


class Written(NamedTuple):
    """The size in bytes and the SHA-256, in hexadecimal, of an object that was put."""

    size: int
    sha256: str


class Stored(NamedTuple):
    """An object in a list: its key, its size in bytes and when it was put, by the store's clock, in UTC."""

    key: str
    size: int
    modified: datetime


def new_key(area: str, group: int | str) -> str:
    """A key that no object has. `group`: the study's id, or for what belongs to none another word of digits
    and capitals."""
    return checked(f"{area}/{group}/{uuid4().hex}")


def checked(key: str) -> str:
    """The key itself. Raises ValueError where it is none."""
    if not KEY.fullmatch(key):
        raise ValueError("not the key of an object")
    return key


class Store(ABC):
    """A place for objects. All methods take checked keys only: ValueError for any other text.

    Memory is bounded by the chunks that are given or taken, plus 16 MiB for S3. Raises StoreAway where the
    place cannot be used.
    """

    @abstractmethod
    def put(self, key: str, chunks: Iterable[bytes]) -> Written:
        """Write an object. It is there whole and on disk once this returns, and not at all where it raises.

        Raises what `chunks` raises, and OSError where a folder cannot be written (a full disk).
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """The size of an object in bytes. Raises NoObject."""

    @abstractmethod
    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of an object from `start` up to, without, `end` (None: its last one), in chunks.

        What lies beyond the object's end is left out. Raises NoObject.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object. One that is not there is deleted already."""

    @abstractmethod
    def listed(self, prefix: str) -> Iterator[Stored]:
        """The objects under `<area>` or `<area>/<study>`, by key."""

    @abstractmethod
    def link(self, method: Method, key: str, now: datetime, seconds: int, length: int | None = None) -> str:
        """An address with which anybody may get or put this object for so many seconds (1 to LONGEST_LINK).

        A link to put is for exactly `length` bytes.
        """

    def sweep_parts(self, area: str, before: datetime) -> int:
        """Delete what puts left that were killed before this time; how many files that were."""
        return 0


def check_link(method: Method, seconds: int, length: int | None) -> None:
    """Raise ValueError where no such link can be made."""
    if not 0 < seconds <= LONGEST_LINK:
        raise ValueError("a link is good for 1 second to 7 days")
    if (method == "PUT") != (length is not None) or (length or 0) < 0:
        raise ValueError("a link to put has a length, and no other has one")


def local_link(method: Method, key: str, now: datetime, seconds: int, length: int | None) -> str:
    """A link to the route of this service that serves the objects of a folder."""
    checked(key)
    check_link(method, seconds, length)
    expires = int(now.timestamp()) + seconds
    signature = _signature(settings().signing_keys[0], method, key, expires, length)
    query = {"expires": expires} | ({} if length is None else {"length": length})
    return f"{settings().storage_address}/storage/{key}?{urlencode(query | {'signature': signature})}"


def is_signed(method: str, key: str, expires: int, length: int | None, signature: str) -> bool:
    """Whether a link of the local store is ours, by any of the signing keys; it may be over.

    The time that this takes tells nothing of the right signature: each comparison is constant in time, and
    all keys are compared.
    """
    right = [_signature(each, method, key, expires, length) for each in settings().signing_keys]
    return any([hmac.compare_digest(text.encode(), signature.encode()) for text in right])  # noqa: C419


def _signature(signing_key: str, method: str, key: str, expires: int, length: int | None) -> str:
    own_key = hmac.digest(signing_key.encode(), LINK, "sha256")
    text = f"{method}\n{key}\n{expires}\n{'' if length is None else length}"
    return hmac.digest(own_key, text.encode(), "sha256").hex()


def store() -> Store:
    """The store that KAIROS_STORE names."""
    # both import this module, and the second one an optional package
    if settings().store.startswith("file:"):
        from models.core import objects_folder

        return objects_folder.of_settings()
    from models.core import objects_s3

    return objects_s3.of_settings()


def sweep(area: str, named: Callable[[list[str]], set[str]], now: datetime) -> list[str]:
    """Delete the area's objects that are a day old and that no row names; their keys.

    `named` returns those of some keys that rows name. What killed puts left behind goes too.
    """
    place, before, deleted = store(), now - ORPHAN_AGE, list[str]()
    old = (each.key for each in place.listed(area) if each.modified < before)
    while keys := list(islice(old, SWEPT_AT_ONCE)):
        for key in sorted(set(keys) - named(keys)):
            place.delete(key)
            deleted.append(key)
    place.sweep_parts(area, before)
    return deleted
