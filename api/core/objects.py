"""Files out of the object store: answers with an object or a part of it, and links to those in a folder.

Where KAIROS_STORE is a folder, a signed link leads here; an S3 bucket's links lead to S3 itself.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from flask import Response, request
from pydantic import Field

from api.core.endpoint import Domain, Query, Reply
from models.core import objects
from models.core.objects import NoObject
from services.core.faults import CoreFault
from services.core.refusals import Refusal

domain = Domain("objects", __doc__)
ANYTHING = "application/octet-stream"
BLOCK = 256 * 1024  # bytes of an upload in memory at once
PATH = "/storage/<path:object_key>"


class Signed(Query):
    """The signature of a link, until when it is good (Unix time), and the size of what may be put there."""

    expires: int = Field(ge=0, le=2**40)
    signature: str = Field(max_length=64)
    length: int | None = Field(default=None, ge=0, le=2**50)


class Put(Reply):
    """What was stored."""

    bytes: int
    sha256: str


class _Body:
    """The chunks of an object from a place on that is sought before the first is taken.

    werkzeug, which picks out the part that `Range` asks for, would read all that lies before it otherwise.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.start = 0
        self.chunks: Iterator[bytes] | None = None

    def seekable(self) -> bool:
        return True

    def seek(self, start: int) -> None:
        self.start = start

    def tell(self) -> int:
        return self.start

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.chunks is None:
            self.chunks = objects.store().read(self.key, self.start)
        return next(self.chunks)


def send(key: str, name: str, media: str, sha256: str | None = None) -> Response:
    """The answer to a GET: the object, or the part of it that `Range` asks for, as a file of this name.

    Its ETag is the SHA-256 where that is known, else the key: no other object ever has it. Raises NoObject.
    """
    size = objects.store().size(key)
    response = Response(_Body(key), content_type=media)
    response.content_length = size
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    response.headers["Cache-Control"] = "no-cache, max-age=0"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.set_etag(sha256 or key.rpartition("/")[2])
    response.make_conditional(request, accept_ranges=True, complete_length=size)
    return response


@domain.operation(
    "GET",
    PATH,
    roles=None,
    faults=(
        CoreFault.LINK_WRONG,
        CoreFault.LINK_OVER,
        CoreFault.OBJECT_GONE,
        CoreFault.RANGE,
        CoreFault.STORE_AWAY,
    ),
    media=ANYTHING,
)
def fetch_object(object_key: str, query: Signed) -> Response:
    """The file at a signed link. The link itself is the right to it: no token is asked for."""
    _check("GET", object_key, query)
    try:
        return send(object_key, object_key.rpartition("/")[2], ANYTHING)
    except NoObject:
        raise Refusal(CoreFault.OBJECT_GONE) from None


@domain.operation(
    "PUT",
    PATH,
    roles=None,
    faults=(
        CoreFault.NO_ROUTE,
        CoreFault.LINK_WRONG,
        CoreFault.LINK_OVER,
        CoreFault.OBJECT_THERE,
        CoreFault.STORE_AWAY,
    ),
)
def put_object(object_key: str, query: Signed) -> Put:
    """Store the body at a signed link: exactly as many bytes as the link is for, and once."""
    _check("PUT", object_key, query)
    length = query.length or 0  # a link to put always has one
    if request.content_length != length:
        raise Refusal(CoreFault.TOO_LARGE if (request.content_length or 0) > length else CoreFault.LINK_WRONG)
    try:
        objects.store().size(object_key)
    except NoObject:
        request.max_content_length = length
        stream = request.stream
        written = objects.store().put(object_key, iter(lambda: stream.read(BLOCK), b""))
        return Put(bytes=written.size, sha256=written.sha256)
    raise Refusal(CoreFault.OBJECT_THERE)


def _check(method: str, key: str, query: Signed) -> None:
    """Raise Refusal where the link is not for this, or over. Who has no link learns nothing of the store."""
    if not objects.is_signed(method, key, query.expires, query.length, query.signature):
        raise Refusal(CoreFault.LINK_WRONG)
    if query.expires <= datetime.now(UTC).timestamp():
        raise Refusal(CoreFault.LINK_OVER)
