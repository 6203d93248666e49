"""The client of a study's back end: it asks for survey data over HTTP, bounded in time and size."""

import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import requests
from celery.exceptions import SoftTimeLimitExceeded
from urllib3.exceptions import HTTPError

from workers.core import outgoing
from workers.core.outgoing import NotAllowed

LARGEST_ANSWER = 4 * 1024 * 1024
MOST_ITEMS = 1000  # the span of a query holds a few decisions
LONGEST_WAIT = 3600.0  # seconds, that a back end may ask for
PASSING = {408, 425, 429}  # statuses that a later try may not meet again; all of 5xx are such too

SAYS_FAIL = 316
NO_DATA = 317
UNREACHABLE = 320


class Query(NamedTuple):
    """A query for one participant's data in one span of time: its address, token and arguments."""

    url: str
    token: str | None
    user_id: str
    start_time: datetime
    end_time: datetime


class BackEndFailed(Exception):
    """The failure of a back end to give survey data.

    soon: True where a try within the minute may succeed, else the slow schedule is enough. after: seconds for
    which the back end asked to be left in peace.
    """

    def __init__(self, code: int, reason: str, soon: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.soon = soon
        self.after = after


def survey_data(query: Query) -> list[dict[str, Any]]:
    """Return the items that the back end has for a query, as it sent them. Raises BackEndFailed."""
    headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
    span = {"start_time": query.start_time.isoformat(), "end_time": query.end_time.isoformat()}
    try:
        with outgoing.post(query.url, headers, json={"user_id": query.user_id, **span}) as response:
            status, body, after = response.status_code, _body(response), _retry_after(response)
    except NotAllowed as refused:
        raise BackEndFailed(UNREACHABLE, str(refused), soon=False) from None
    except (requests.RequestException, HTTPError) as error:
        raise BackEndFailed(UNREACHABLE, f"no answer: {type(error).__name__}", soon=True) from None
    except SoftTimeLimitExceeded:
        raise BackEndFailed(UNREACHABLE, "the answer takes too long", soon=True) from None
    if status in PASSING or status >= 500:
        raise BackEndFailed(UNREACHABLE, f"HTTP status {status}", soon=True, after=after)
    if status in {401, 403}:
        raise BackEndFailed(SAYS_FAIL, f"HTTP status {status}", soon=False)
    if status != 200:
        raise BackEndFailed(UNREACHABLE, f"HTTP status {status}", soon=False)
    return _items(_ema_data(body))


def _body(response: requests.Response) -> bytes:
    """Read the body of an answer, unpacked, within its bounds of size and time. Raises BackEndFailed."""
    body, until = bytearray(), time.monotonic() + outgoing.seconds_left(response)
    while chunk := response.raw.read1(64 * 1024, decode_content=True):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BackEndFailed(UNREACHABLE, "the answer is too large", soon=False)
        if time.monotonic() > until:
            raise BackEndFailed(UNREACHABLE, "the answer takes too long", soon=True)
    return bytes(body)


def _retry_after(response: requests.Response) -> float:
    """Return the header Retry-After (RFC 9110, 10.2.3) in seconds, at most LONGEST_WAIT; 0 if unreadable."""
    header = response.headers.get("Retry-After", "")
    if header.isascii() and header.isdigit():
        return min(float(header), LONGEST_WAIT)
    try:
        wait = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT)


def _ema_data(body: bytes) -> Any:
    """Read `ema_data` in an answer {"status": "success", "ema_data": ...}. Raises BackEndFailed."""
    try:
        answer = json.loads(body, object_pairs_hook=Repeating.read)
    except (ValueError, RecursionError):
        raise BackEndFailed(UNREACHABLE, "the answer is not JSON", soon=True) from None
    if isinstance(answer, Repeating):
        raise BackEndFailed(UNREACHABLE, "a name stands twice in the answer", soon=False)
    if not isinstance(answer, dict):
        raise BackEndFailed(UNREACHABLE, "the answer is no object", soon=False)
    status = answer.get("status")
    if status in ("fail", "failure"):
        raise BackEndFailed(SAYS_FAIL, "the back end says fail", soon=False)
    if status != "success":
        raise BackEndFailed(UNREACHABLE, "the answer says neither success nor fail", soon=False)
    return answer.get("ema_data")


def _items(data: Any) -> list[dict[str, Any]]:
    """Read the items in `ema_data`, an object {label: item}. Raises BackEndFailed."""
    if data == []:  # as some languages write an empty object
        data = {}
    # a label means nothing and may be repeated; a field of an item may not
    items: list[Any] = list(data.values()) if isinstance(data, dict | Repeating) else [data]
    if any(isinstance(item, Repeating) for item in items):
        raise BackEndFailed(UNREACHABLE, "a name stands twice in an item", soon=False)
    if not all(isinstance(item, dict) for item in items):
        raise BackEndFailed(SAYS_FAIL, "ema_data is not an object of items", soon=False)
    if not items:
        raise BackEndFailed(NO_DATA, "no data for the window", soon=False)
    if len(items) > MOST_ITEMS:
        raise BackEndFailed(UNREACHABLE, f"more than {MOST_ITEMS} items", soon=False)
    return items


class Repeating(NamedTuple):
    """A JSON object that has two members of the same name."""

    pairs: list[tuple[str, Any]]

    @staticmethod
    def read(pairs: list[tuple[str, Any]]) -> "dict[str, Any] | Repeating":
        """Return a JSON object as a dictionary, or as Repeating where a name stands twice."""
        members = dict(pairs)
        return members if len(members) == len(pairs) else Repeating(pairs)

    def values(self) -> list[Any]:
        """Return the values of all members."""
        return [value for _, value in self.pairs]
