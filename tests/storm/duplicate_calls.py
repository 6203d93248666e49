"""What is sent in a storm of duplicates: for each participant, bursts of calls which leave at once.

A call names its decision point by the index, by an Idempotency-Key or by neither, as each is safe: without
either only while its answer is waited for, and before the burst about the next point. Some come with other
answers than the rest.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.study import NOT_FINISHED, REGISTRATION

POINTS = 20  # of each participant, all of them
OTHERWISE = 0.2  # of the calls for decisions have other answers


@dataclass(frozen=True)
class Call:
    """One call. All calls with the same `about` must be answered with the same body."""

    path: str
    body: dict[str, Any]
    about: tuple[str, str, int]
    success: int
    key: str | None = None
    may_be_lost: bool = False


class Person:
    """One participant: everything that is ever sent about them, as bursts of calls to be sent at once."""

    def __init__(self, user_id: str, chance: random.Random) -> None:
        self._user_id, self._chance = user_id, chance
        self._keys: list[tuple[str, int, str]] = []  # those that were answered: path, index, key

    def bursts(self) -> Iterator[list[Call]]:
        """Enrolment and all points, in order or with everything about a point at once."""
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
        form = self._chance.choice(("index", "key", "neither"))
        if form == "index":
            return self._call(path, index)
        if form == "key":
            return self._keyed(path, index, f"{index}-{self._chance.randrange(3)}")
        return self._call(path, index, named=False)

    def _mixed(self, index: int) -> list[Call]:
        """Everything about one point at once, in any order: each call must then name the point."""
        paths = ("/actions", "/end_decision_window")
        calls = [self._call(path, index) for path in paths for _ in range(self._chance.randint(1, 12))]
        calls += [self._enrolment(), *self._late(index - 1)]
        self._chance.shuffle(calls)
        return calls

    def _late(self, last: int) -> list[Call]:
        """Repeats of what was long answered."""
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
        used = {"app_use_flag": self._chance.random() < OTHERWISE}
        answers = NOT_FINISHED | used if path == "/actions" else {}
        body = {"user_id": self._user_id, **answers, **({"decision_index": index} if named else {})}
        success = 200 if path == "/actions" else 202
        may_be_lost = named or key is not None
        return Call(path, body, (path, self._user_id, index), success, key, may_be_lost)
