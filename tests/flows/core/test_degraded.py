"""What goes on while parts of the service are dead or hang, and that nothing is lost by it.

Every call has a time-out of its own: an answer that does not come fails the test.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from itertools import count
from threading import Event
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest
import requests

from local.embedded import Embedded
from local.ports import free_port
from local.stack import Stack
from rehearsal.backend import Backend, EmaServer
from rehearsal.contract import Decision, Enrolment, Survey
from tests.local.families import eventually, family_of, running
from tests.storm import duplicates
from tests.support import remote
from tests.support.remote import Remote

SOON = 2.0  # an answer where the database is dead, or restarts
BOUND = 12.0  # where it hangs: 8 s for a transaction, 2 s for a new connection
DAY = date(2020, 1, 1)
CALLS = 800
AWAY = (503, 907)
names = (f"person-{number}" for number in count())


@pytest.fixture(scope="module")
def client(stack: Stack) -> Remote:
    """A study in the running stack."""
    return remote.begin(stack.env, stack.api_url)


def is_away(answer: requests.Response) -> bool:
    """Whether the service says that its database is away, as the contract has it."""
    body = answer.json()
    told = body["status"], body.get("error_code")
    return answer.status_code == 503 and "Retry-After" in answer.headers and told == ("fail", 907)


def decides(client: Remote, user_id: str) -> bool:
    return client.post_actions(user_id).status_code == 200


@contextmanager
def dead_database(embedded: Embedded) -> Iterator[None]:
    """PostgreSQL is killed before the block and started again after it.

    Only its parent is killed: the backends end when they see that, and one that is slow may answer a call
    before, rightly. So the block begins when the last of them has ended.
    """
    backends = family_of(embedded.pids["db"])[1:]
    os.kill(embedded.pids["db"], signal.SIGKILL)
    try:
        assert eventually(lambda: not running(backends))
        yield
    finally:
        embedded.restart_dead()


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """A process and all its children neither run nor die while the block lasts."""
    stopped: list[Any] = []
    while new := [process for process in family_of(pid) if process not in stopped]:
        for process in new:  # the first stopped is the parent, which then has no more children
            process.suspend()
        stopped += new
    try:
        yield
    finally:
        for process in reversed(stopped):
            if psutil.pid_exists(process.pid):
                process.resume()


def is_up(url: str) -> bool:
    return requests.get(f"{url}/healthcheck", timeout=BOUND).ok


def kill(pid: int) -> None:
    for process in family_of(pid):
        process.kill()


def test_calls_are_answered_without_broker_workers_and_app_and_all_is_ingested_later(
    stack: Stack, embedded: Embedded
) -> None:
    port = free_port()
    client = remote.begin(stack.env, stack.api_url, ema_url=f"http://127.0.0.1:{port}/ema_study")
    backend = Backend(token=None)
    people = [next(names) for _ in range(3)]
    for name in people:
        client.enrol(name)
        backend.enrol(name)
    kill(stack.pids["worker"])
    kill(stack.pids["beat"])
    kill(embedded.pids["broker"])
    for name in people:
        for _ in range(2):
            keep(backend, name, client.post_actions(name, seconds=SOON).json())
            assert client.post_end(name, seconds=SOON).status_code == 202
    assert client.get("/study")["windows"]["ended"] == 6
    embedded.restart_dead()
    with EmaServer(backend, port):
        stack.restart_dead()
        assert eventually(lambda: client.get("/study")["windows"]["ingested"] == 6, seconds=60)
    assert client.get("/study")["discrepancies"] == 0


def keep(backend: Backend, name: str, answer: dict[str, Any]) -> None:
    """Let the app remember what it was told."""
    fields = ("rid", "action", "seed", "act_prob", "policy_id", "decision_index", "state", "fallback_level")
    at = datetime.fromisoformat(answer["act_gen_timestamp"])
    decision = Decision(**{field: answer[field] for field in fields}, act_gen_timestamp=at)
    enrolment = Enrolment(name, DAY, DAY, DAY, DAY, (800,) * 7, (1900,) * 7)
    backend.store(enrolment, Survey(finished_ema=False, app_use_flag=False), decision)


def test_calls_are_answered_while_the_broker_hangs(client: Remote, embedded: Embedded) -> None:
    ann = next(names)
    client.enrol(ann)
    with hanging(embedded.pids["broker"]):
        for index in (1, 2, 3):
            assert client.post_actions(ann, seconds=SOON).json()["decision_index"] == index
            assert client.post_end(ann, seconds=SOON).status_code == 202


def test_a_killed_database_is_503_at_once_and_the_service_resumes_by_itself(
    client: Remote, embedded: Embedded
) -> None:
    ann = next(names)
    client.enrol(ann)
    first = client.post_actions(ann)
    with dead_database(embedded):
        for _ in range(20):  # more than there are connections in the pools
            assert is_away(client.post_actions(ann, seconds=SOON))
        assert is_away(client.post_end(ann, seconds=SOON))
        assert requests.get(f"{client.url}/running", timeout=SOON).status_code == 200
    assert eventually(lambda: decides(client, ann))
    assert client.post_actions(ann).text == first.text
    assert client.post_end(ann).json()["decision_index"] == 1


def test_a_restarting_database_is_503_or_an_answer_and_loses_no_decision(
    client: Remote, embedded: Embedded
) -> None:
    people = [next(names) for _ in range(8)]
    for name in people:
        client.enrol(name)

    is_over = Event()

    def ask(name: str) -> list[requests.Response]:
        answers = []
        for index in range(1, 61):
            answers.append(client.post_actions(name, decision_index=index, seconds=SOON))
            if is_over.is_set():
                break
        return answers

    with ThreadPoolExecutor(len(people)) as pool:
        asked = [pool.submit(ask, name) for name in people]
        os.kill(embedded.pids["db"], signal.SIGINT)  # a fast shutdown
        embedded.restart_dead()
        is_over.set()
        answers = [one.result() for one in asked]
    assert eventually(lambda: decides(client, people[0]))
    assert any(is_away(answer) for told in answers for answer in told)
    for name, told in zip(people, answers, strict=True):
        for index, answer in enumerate(told, start=1):
            assert answer.status_code == 200 or is_away(answer), answer.text
            if answer.status_code == 200:
                assert client.post_actions(name, decision_index=index).text == answer.text


def test_a_hanging_database_is_503_in_bounded_time_and_the_service_resumes_by_itself(
    client: Remote, embedded: Embedded
) -> None:
    ann = next(names)
    client.enrol(ann)
    first = client.post_actions(ann)
    with ThreadPoolExecutor(32) as pool:
        with hanging(embedded.pids["db"]):  # as many calls as there are threads in the API, twice
            answers = list(pool.map(lambda _: client.post_actions(ann, seconds=3 * BOUND), range(32)))
            assert all(is_away(answer) for answer in answers)
            assert is_away(client.post_actions(ann, seconds=BOUND))
        assert eventually(lambda: decides(client, ann))
    assert client.post_actions(ann).text == first.text


def reached(calls: duplicates.Storm, number: int) -> bool:
    """Whether so many calls of a storm come to be answered, and not sent away."""
    found = calls.findings
    return eventually(lambda: found.calls - found.statuses[AWAY] >= number, seconds=300)


def sends_away(calls: duplicates.Storm) -> bool:
    """Whether a call of a storm is sent away from now on."""
    statuses = calls.findings.statuses
    before = statuses[AWAY]
    return eventually(lambda: statuses[AWAY] > before)


def test_a_storm_over_a_dying_database_and_api_leaves_one_decision_for_each_point(
    stack: Stack, embedded: Embedded
) -> None:
    people = duplicates.prepared_storm(stack.env, stack.api_url, CALLS, 16, 7, lambda _: None)
    with people as (calls, account), ThreadPoolExecutor(1) as pool:
        playing = pool.submit(calls.run)
        for number in (1, 2, 3):
            assert reached(calls, number * CALLS // 4)  # however fast that is, most of the storm is left
            if number == 2:
                family_of(stack.pids["api"])[1].kill()
            else:
                with dead_database(embedded):
                    assert sends_away(calls)
            assert not playing.done()
        playing.result()
        assert eventually(lambda: is_up(stack.api_url))
        assert duplicates.check(calls, account.get) == []
