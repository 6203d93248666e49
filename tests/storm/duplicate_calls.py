"""The calls of a storm of duplicates, in bursts that are sent at once, and the connections that send them.

A call names its decision point by the index, by an Idempotency-Key or by neither. A call with neither is only
safe while its sender waits for the answer, and before the burst about the next point. Some calls have other
survey answers than their duplicates.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from tests.support.study import NOT_FINISHED, REGISTRATION

POINTS = 20  # of each participant
TRIES = 200  # of a call, until it is answered
SECONDS = 30.0  # that a call waits for its answer
OTHERWISE = 0.2  # share of the calls for decisions that have other answers


@dataclass(frozen=True)
class Call:
    """A call of the storm. All calls with the same `about` must be answered with the same body."""

    path: str
    body: dict[str, Any]
    about: tuple[str, str, int]
    success: int
    key: str | None = None
    may_be_lost: bool = False


class Person:
    """A participant, with everything that is sent about them as bursts of calls."""

    def __init__(self, user_id: str, chance: random.Random) -> None:
        self._user_id, self._chance = user_id, chance
        self._keys: list[tuple[str, int, str]] = []  # path, index and key of keyed calls that were answered

    def bursts(self) -> Iterator[list[Call]]:
        """Yield the bursts of the enrolment and of all points; a point is one burst or two."""
        yield [self._enrolment() for _ in range(self._chance.randint(1, 8))]
        for index in range(1, POINTS + 1):
            if self._chance.random() < 0.5:
                yield self._duplicates("/actions", index) + self._late(index - 1)
                yield self._duplicates("/end_decision_window", index) + self._late(index - 1)
            else:
                yield self._mixed(index)

    def _enrolment(self) -> Call:
        about = ("/register", self._user_id, 0)
        return Call("/register", {"user_id": self._user_id, **REGISTRATION}, about, 201, may_be_lost=True)

    def _duplicates(self, path: str, index: int) -> list[Call]:
        calls = [self._any_form(path, index) for _ in range(self._chance.randint(1, 12))]
        self._keys += [(path, index, call.key) for call in calls if call.key]
        return calls

    def _any_form(self, path: str, index: int) -> Call:
        """Return a call that names its point by index, by key, or not at all."""
        form = self._chance.choice(("index", "key", "neither"))
        if form == "index":
            return self._call(path, index)
        if form == "key":
            return self._keyed(path, index, f"{index}-{self._chance.randrange(3)}")
        return self._call(path, index, named=False)

    def _mixed(self, index: int) -> list[Call]:
        """Return all calls about a point as a single burst."""
        # decision and window may arrive in any order, so each call must name the point
        paths = ("/actions", "/end_decision_window")
        calls = [self._call(path, index) for path in paths for _ in range(self._chance.randint(1, 12))]
        calls += [self._enrolment(), *self._late(index - 1)]
        self._chance.shuffle(calls)
        return calls

    def _late(self, last: int) -> list[Call]:
        """Return repeats of calls about points up to `last`, which were answered long ago."""
        calls = []
        for _ in range(self._chance.randrange(4) if last else 0):
            if self._keys and self._chance.random() < 0.5:
                calls.append(self._keyed(*self._chance.choice(self._keys)))
            else:
                path = self._chance.choice(("/actions", "/end_decision_window"))
                calls.append(self._call(path, self._chance.randint(1, last)))
        return calls

    def _keyed(self, path: str, index: int, key: str) -> Call:
        return self._call(path, index, named=False, key=key)

    def _call(self, path: str, index: int, named: bool = True, key: str | None = None) -> Call:
        app_use = {"app_use_flag": self._chance.random() < OTHERWISE}
        answers = NOT_FINISHED | app_use if path == "/actions" else {}
        body = {"user_id": self._user_id, **answers, **({"decision_index": index} if named else {})}
        success = 200 if path == "/actions" else 202
        may_be_lost = named or key is not None
        return Call(path, body, (path, self._user_id, index), success, key, may_be_lost)


class Wire:
    """A connection for each thread, kept between calls."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._thread = threading.local()

    def send(self, call: Call) -> tuple[int, str]:
        """Send a call until it is answered and return status and body.

        Raises TimeoutError where a call waits in vain and does not name its point.
        """
        for _ in range(TRIES):
            connection = self._connection()
            try:
                self._begin(connection, call)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except (HTTPException, OSError) as error:
                connection.close()
                # a repeat of a call that does not name its point might decide the next one
                if isinstance(error, TimeoutError) and not call.may_be_lost:
                    raise
                time.sleep(0.05)
        raise TimeoutError(f"no answer to {call.path}")

    def abandon(self, call: Call, after: float) -> None:
        """Send a call and hang up after `after` seconds, before its answer."""
        connection = self._connection()
        try:
            self._begin(connection, call)
            time.sleep(after)
        except (HTTPException, OSError):
            pass
        connection.close()

    def _begin(self, connection: HTTPConnection, call: Call) -> None:
        key = {"Idempotency-Key": call.key} if call.key else {}
        connection.request("POST", call.path, json.dumps(call.body), self._headers | key)

    def _connection(self) -> HTTPConnection:
        if not hasattr(self._thread, "connection"):
            self._thread.connection = HTTPConnection(self._address, timeout=SECONDS)
        connection: HTTPConnection = self._thread.connection
        return connection
