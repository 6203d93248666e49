"""Asking a study's back end for survey data over HTTP, bounded in time and size."""

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
MOST_ITEMS = 1000  # the span asked for holds a few decisions
LONGEST_WAIT = 3600.0  # that a back end may ask for
PASSING = {408, 425, 429}  # with 5xx: statuses that a later try may not meet again

SAYS_FAIL = 316
NO_DATA = 317
UNREACHABLE = 320


class Query(NamedTuple):
    """What to ask, where and with which token: one participant's data in one span of time."""

    url: str
    token: str | None
    user_id: str
    start_time: datetime
    end_time: datetime


class BackEndFailed(Exception):
    """The back end gave no survey data. `soon`: worth a try within the minute, else on the slow schedule.

    after: seconds that the back end asked to be left in peace for.
    """

    def __init__(self, code: int, reason: str, soon: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.soon = soon
        self.after = after


def survey_data(query: Query) -> list[dict[str, Any]]:
    """The items that the back end has for a query, as it sent them. Raises BackEndFailed."""
    try:
        status, body, after = _post(query)
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
    return _items(body)


def _post(query: Query) -> tuple[int, bytes, float]:
    asked = {
        "user_id": query.user_id,
        "start_time": query.start_time.isoformat(),
        "end_time": query.end_time.isoformat(),
    }
    headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
    with outgoing.post(query.url, headers, json=asked) as response:
        return response.status_code, _bounded(response), _asked_to_wait(response)


def _bounded(response: requests.Response) -> bytes:
    """The body, unpacked, within its bounds of size and time."""
    body, until = bytearray(), time.monotonic() + outgoing.seconds_left(response)
    while chunk := response.raw.read1(64 * 1024, decode_content=True):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BackEndFailed(UNREACHABLE, "the answer is too large", soon=False)
        if time.monotonic() > until:
            raise BackEndFailed(UNREACHABLE, "the answer takes too long", soon=True)
    return bytes(body)


def _asked_to_wait(response: requests.Response) -> float:
    """The header Retry-After (RFC 9110, 10.2.3) in seconds, within reason; nonsense counts as none."""
    given = response.headers.get("Retry-After", "")
    if given.isascii() and given.isdigit():
        return min(float(given), LONGEST_WAIT)
    try:
        wait = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT)


def _items(body: bytes) -> list[dict[str, Any]]:
    answer = _parsed(body)
    status = answer.get("status")
    if status in ("fail", "failure"):
        raise BackEndFailed(SAYS_FAIL, "the back end says fail", soon=False)
    if status != "success":
        raise BackEndFailed(UNREACHABLE, "the answer says neither success nor fail", soon=False)
    found = _labelled(answer.get("ema_data"))
    if not found:
        raise BackEndFailed(NO_DATA, "no data for the window", soon=False)
    if len(found) > MOST_ITEMS:
        raise BackEndFailed(UNREACHABLE, f"more than {MOST_ITEMS} items", soon=False)
    return found


class Repeating(NamedTuple):
    """A JSON object in which a name stands more than once."""

    pairs: list[tuple[str, Any]]

    def values(self) -> list[Any]:
        """All of them."""
        return [value for _, value in self.pairs]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeating:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeating(pairs)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise BackEndFailed(UNREACHABLE, "the answer is not JSON", soon=True) from None
    if isinstance(answer, Repeating):
        raise BackEndFailed(UNREACHABLE, "a name stands twice in the answer", soon=False)
    if not isinstance(answer, dict):
        raise BackEndFailed(UNREACHABLE, "the answer is no object", soon=False)
    return answer


def _labelled(data: Any) -> list[dict[str, Any]]:
    """All items of `ema_data`: a label means nothing and may come again, a field of an item may not. Where
    there is none, some languages write an empty object as an empty list.
    """
    if data == []:
        return []
    found = list(data.values()) if isinstance(data, dict | Repeating) else [data]
    if any(isinstance(item, Repeating) for item in found):
        raise BackEndFailed(UNREACHABLE, "a name stands twice in an item", soon=False)
    if not all(isinstance(item, dict) for item in found):
        raise BackEndFailed(SAYS_FAIL, "ema_data is not an object of items", soon=False)
    return found
