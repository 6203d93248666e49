"""The rehearsal as the trial's client, in lockstep with the service or free-running."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import requests

from rehearsal.backend import MORE_FAULTS, Backend, EmaServer, Faults
from rehearsal.client import Client
from rehearsal.play import Rehearsal, is_settled
from tests.storm.trial import Account, Deployment, Seed

THREADS = 8
PATIENCE = 150.0  # longer than the two minutes that a circuit waits for a killed probe
LATE = "late"  # no failure: the answer comes, well within the time that the service waits for one
LATE_SECONDS = 0.4
SHARE = 1 / 3  # share of the back end's calls that fail
DISTURBED = SHARE * len(MORE_FAULTS) / (len(MORE_FAULTS) - 1)  # share of its calls that fail or are late


class NotQuiet(AssertionError):
    """The failure of the service to finish its work."""


class CountingClient(Client):
    """A client that counts the results of its tries: statuses and network errors."""

    def __init__(self, url: str, account: Account) -> None:
        super().__init__(url, account.study, account.name, account.password, PATIENCE)
        self.results: Counter[str] = Counter()
        self._counting = Lock()

    def _try(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None
    ) -> tuple[requests.Response | None, str]:
        response, result = super()._try(method, path, body, token)
        with self._counting:
            self.results[result] += 1
        return response, result


class FaultyBackend(Backend):
    """A back end that counts its failures on purpose by kind, and its late answers."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(None, Faults(share, LATE_SECONDS, seed, MORE_FAULTS))
        self.failed: Counter[str] = Counter()
        self.late = 0

    def next_fault(self) -> str | None:
        fault = super().next_fault()
        if fault == LATE:
            self.late += 1
        elif fault:
            self.failed[fault] += 1
        return fault


@contextmanager
def playing(deployment: Deployment, seed: Seed, study: str, share: float, number: int) -> Iterator[Rehearsal]:
    """Yield a rehearsal of a study in which everybody is enrolled.

    The back end fails `share` of its calls or answers them late.
    """
    account, backend = seed.accounts[study], FaultyBackend(share, number)
    for person in seed.people:
        backend.enrol(person.enrolment.user_id)
    with EmaServer(backend, account.port):
        client = CountingClient(deployment.stack.api_url, account)
        yield Rehearsal(client, backend, seed.people, THREADS, number)


def in_lockstep(play: Rehearsal, step: Callable[[int], object]) -> None:
    """Walk with a wait after each round until every window is ingested and learnt from. Raises NotQuiet."""

    def wait(points: int) -> None:
        settle(play)
        step(points)

    play.walk(wait)


def settle(play: Rehearsal) -> None:
    """Wait until all is ingested and learnt from. Raises NotQuiet where nothing changes any more."""
    report, expected = play.settle(PATIENCE), play.expected()
    if not is_settled(report, expected):
        raise NotQuiet(f"{report} is not {expected}: {play.not_ingested()}")
