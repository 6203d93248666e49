"""Asking a study's back end for survey data over HTTP, bounded in time and size."""

import json
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from settings import settings

CONNECT_SECONDS, READ_SECONDS, LARGEST_ANSWER = 3.05, 10, 4 * 1024 * 1024
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
    """The back end gave no survey data. `soon`: worth a try within the minute, else on the slow schedule."""

    def __init__(self, code: int, reason: str, soon: bool) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.soon = soon


def survey_data(query: Query) -> list[dict[str, Any]]:
    """The items that the back end has for a query, as it sent them. Raises BackEndFailed."""
    _check_target(query.url)
    try:
        status, body = _post(query)
    except requests.RequestException as error:
        raise BackEndFailed(UNREACHABLE, f"no answer: {type(error).__name__}", soon=True) from None
    if status in PASSING or status >= 500:
        raise BackEndFailed(UNREACHABLE, f"HTTP status {status}", soon=True)
    if status in {401, 403}:
        raise BackEndFailed(SAYS_FAIL, f"HTTP status {status}", soon=False)
    if status != 200:
        raise BackEndFailed(UNREACHABLE, f"HTTP status {status}", soon=False)
    return _items(body)


def _check_target(url: str) -> None:
    """Only hosts that the operator named, and in production only TLS."""
    target = urlsplit(url)
    allowed = settings().outgoing_hosts
    if target.hostname not in allowed and target.netloc not in allowed:
        raise BackEndFailed(UNREACHABLE, "the host is not in KAIROS_OUTGOING_HOSTS", soon=False)
    if settings().mode == "production" and target.scheme != "https":
        raise BackEndFailed(UNREACHABLE, "the back end must be asked over https", soon=False)


def _post(query: Query) -> tuple[int, bytes]:
    asked = {
        "user_id": query.user_id,
        "start_time": query.start_time.isoformat(),
        "end_time": query.end_time.isoformat(),
    }
    headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
    with requests.post(
        query.url,
        json=asked,
        headers=headers,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        allow_redirects=False,
        stream=True,
    ) as response:
        return response.status_code, _bounded(response)


def _bounded(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(64 * 1024):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BackEndFailed(UNREACHABLE, "the answer is too large", soon=False)
    return bytes(body)


def _items(body: bytes) -> list[dict[str, Any]]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise BackEndFailed(UNREACHABLE, "the answer is not JSON", soon=True) from None
    if not isinstance(answer, dict) or answer.get("status") in {"fail", "failure"}:
        raise BackEndFailed(SAYS_FAIL, "the back end says fail", soon=False)
    data = answer.get("ema_data")
    if not isinstance(data, dict) or not all(isinstance(item, dict) for item in data.values()):
        raise BackEndFailed(SAYS_FAIL, "ema_data is not an object of items", soon=False)
    if not data:
        raise BackEndFailed(NO_DATA, "no data for the window", soon=False)
    return list(data.values())
