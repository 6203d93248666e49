"""Objects in a bucket of an S3 service, through the package obstore (the extra `s3`), and links to them.

A put goes in parts of 8 MiB, of which two are under way at a time: at most 80 GB an object. A read asks for
4 MiB at a time, so that a slow reader holds no connection and no time-out runs while it waits.
"""

import functools
import hmac
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from models.core.objects import (
    KEY,
    PREFIX,
    Method,
    NoObject,
    Store,
    StoreAway,
    Stored,
    Written,
    check_link,
    checked,
)
from settings import settings

PART_BYTES = 8 * 2**20
PARTS_AT_ONCE = 2
BLOCK = 4 * 2**20
TIMEOUT = timedelta(seconds=10)  # of one request, with all of its body
CONNECT_TIMEOUT = timedelta(seconds=3)
RETRIES = 2
RETRY_TIMEOUT = timedelta(seconds=20)  # no further try after it: a call takes half a minute at most
REGION = "us-east-1"

_user: int | None = None  # the process that used obstore first


class S3(Store):
    """The objects under a prefix of a bucket. `endpoint`: the service's address, before the bucket's name."""

    def __init__(self, bucket: str, prefix: str, endpoint: str, access_key: str, secret: str, region: str):
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint = endpoint
        self.access_key, self.secret, self.region = access_key, secret, region

    @property
    def client(self) -> S3Store:
        """obstore's client of this process.

        Raises RuntimeError in a child of a process that has used obstore: it would hang there for ever, since
        the threads that do the work are not copied by a fork.
        """
        global _user
        if _user is None:
            _user = os.getpid()
        elif _user != os.getpid():
            raise RuntimeError("the S3 store was used before this process was forked")
        return _client(self.bucket, self.endpoint, self.access_key, self.secret, self.region)

    def _path(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def put(self, key: str, chunks: Iterable[bytes]) -> Written:
        """Write an object, as `Store.put` says."""
        path = self._path(checked(key))
        size, digest, is_theirs = 0, sha256(), False

        def counted() -> Iterator[bytes]:
            nonlocal size, is_theirs
            try:
                for chunk in chunks:
                    size += len(chunk)
                    digest.update(chunk)
                    yield chunk
            except BaseException:
                is_theirs = True
                raise

        try:
            obstore.put(
                self.client,
                path,
                counted(),
                use_multipart=True,  # and no mode="create", which keeps the whole object in memory
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        except (FileNotFoundError, BaseError) as error:
            if is_theirs:
                raise
            is_missing = isinstance(error, FileNotFoundError)
            raise StoreAway("there is no such bucket" if is_missing else _kind(error)) from None
        return Written(size, digest.hexdigest())

    def size(self, key: str) -> int:
        """The size of an object in bytes. Raises NoObject."""
        with self._explained(key):
            return obstore.head(self.client, self._path(checked(key)))["size"]

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of an object, as `Store.read` says."""
        size = self.size(key)
        return self._blocks(key, start, size if end is None else min(end, size))

    def _blocks(self, key: str, start: int, end: int) -> Iterator[bytes]:
        for begin in range(start, end, BLOCK):
            with self._explained(key):
                stop = min(begin + BLOCK, end)
                block = bytes(obstore.get_range(self.client, self._path(key), start=begin, end=stop))
            yield block

    def delete(self, key: str) -> None:
        """Delete an object. One that is not there is deleted already."""
        with self._explained(key):
            obstore.delete(self.client, self._path(checked(key)))

    def listed(self, prefix: str) -> Iterator[Stored]:
        """The objects under a prefix, by key."""
        if not PREFIX.fullmatch(prefix):
            raise ValueError("not the beginning of keys")
        with self._explained(prefix):
            for each in (one for some in obstore.list(self.client, self._path(prefix)) for one in some):
                key = each["path"].removeprefix(self._path(""))
                if KEY.fullmatch(key):
                    yield Stored(key, each["size"], each["last_modified"])

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Raise NoObject or StoreAway in place of what obstore raises."""
        try:
            yield
        except FileNotFoundError:
            try:  # S3 answers 404 where the whole bucket is missing, too: a list tells the two apart
                next(iter(obstore.list(self.client, self._path(key))), None)
            except (FileNotFoundError, BaseError):
                raise StoreAway("there is no such bucket, or it may not be listed") from None
            raise NoObject from None
        except BaseError as error:
            raise StoreAway(_kind(error)) from None

    def link(self, method: Method, key: str, now: datetime, seconds: int, length: int | None = None) -> str:
        """A signed link, as `Store.link` says."""
        path = self._path(checked(key))
        check_link(method, seconds, length)
        headers = {} if length is None else {"content-length": str(length)}
        account = Account(self.access_key, self.secret, self.region)
        address = f"{self.endpoint}/{self.bucket}/{path}"
        return presigned(method, address, account, now, seconds, headers)


class Account:
    """An access key, its secret and its region."""

    def __init__(self, access_key: str, secret: str, region: str) -> None:
        self.access_key, self.secret, self.region = access_key, secret, region


def presigned(
    method: str, address: str, account: Account, now: datetime, seconds: int, headers: dict[str, str]
) -> str:
    """The address with a signature, in AWS's version 4, that is good for one method and so many seconds.

    `headers` (names in lower case) must be sent with these values; the body is not signed. See
    "Authenticating requests: using query parameters" in the Amazon S3 API reference.
    """
    url = urlsplit(address)
    path = quote(url.path, safe="/-_.~")
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    scope = f"{day}/{account.region}/s3/aws4_request"
    signed = {"host": url.netloc, **headers}
    names = ";".join(sorted(signed))
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{account.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
    }
    sent = "&".join(
        f"{name}={quote(value, safe='-_.~')}" for name, value in query.items()
    )  # they are in order
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join([method, path, sent, *lines, "", names, "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, sha256(request.encode()).hexdigest()])
    key = f"AWS4{account.secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{url.scheme}://{url.netloc}{path}?{sent}&X-Amz-Signature={signature}"


def _kind(error: Exception) -> str:
    """The kind of error, without its text, which quotes addresses and keys."""
    return type(error).__name__


@functools.cache
def _client(bucket: str, endpoint: str, access_key: str, secret: str, region: str) -> S3Store:
    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=access_key,
        secret_access_key=secret,
        region=region,
        virtual_hosted_style_request=False,
        client_options={"timeout": TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": True},
        retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
    )


def of_settings() -> S3:
    """The bucket that KAIROS_STORE names, at KAIROS_STORE_ENDPOINT or Amazon's own address."""
    known = settings()
    url = urlsplit(known.store)
    region = known.aws_region or REGION
    endpoint = known.store_endpoint or f"https://s3.{region}.amazonaws.com"
    return S3(url.netloc, url.path, endpoint, known.aws_access_key_id, known.aws_secret_access_key, region)
