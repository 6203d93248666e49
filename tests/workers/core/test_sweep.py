"""The sweep against a real database and broker."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from models.core import jobs
from models.core.jobs import INGEST, Job
from models.core.session import transact
from models.trial import refits
from tests.support.service import Service
from tests.support.study import Study, begin
from workers.core import sweep
from workers.core.celery_app import app, waiting


@pytest.fixture
def window_ended(only_study: Study) -> Iterator[None]:
    """An ended window whose job was sent long ago; its id lies in an otherwise empty broker."""
    _lose_messages()
    only_study.enrol("p")
    only_study.decide("p")
    only_study.end("p")
    _await_message()  # the API sends it from a thread of its own
    long_ago = datetime.now(UTC) - timedelta(days=1)
    transact(lambda session: session.execute(update(Job).values(sent_at=long_ago)))
    yield
    _lose_messages()


def _lose_messages() -> None:
    with app.connection_or_acquire() as connection:
        connection.default_channel.queue_purge(INGEST)


def _await_message(patience: float = 10.0) -> None:
    until = time.monotonic() + patience
    while _messages() == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert _messages() == 1


def _messages() -> int:
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.queue_declare(INGEST).message_count)


@pytest.mark.usefixtures("window_ended")
def test_an_id_that_still_waits_in_the_broker_is_not_sent_again() -> None:
    sweep.sweep()
    assert (_messages(), waiting(INGEST)) == (1, True)


@pytest.mark.usefixtures("window_ended")
def test_an_id_that_the_broker_lost_is_sent_again_once() -> None:
    _lose_messages()
    assert not waiting(INGEST)
    sweep.sweep()
    assert _messages() == 1
    sweep.sweep()
    assert _messages() == 1


@pytest.mark.usefixtures("window_ended")
def test_what_was_put_back_is_sent_once_though_the_queue_is_not_empty() -> None:
    transact(lambda session: session.execute(update(Job).values(sent_at=jobs.LONG_AGO)))
    for _ in range(2):
        sweep.sweep()
        assert _messages() == 2


def test_studies_take_turns_at_being_sent(service: Service) -> None:
    """However many windows of one wait for its back end, and came first."""
    now = datetime.now(UTC)
    for name in ("dead", "well"):
        begin(service, name=name)

    def wait(session: Session, study_id: int, seconds: int) -> int:
        since = now - timedelta(seconds=seconds)
        job = Job(study_id=study_id, kind=INGEST, run_after=since, sent_at=jobs.LONG_AGO)
        session.add(job)
        session.flush()
        return job.id

    def sent(session: Session) -> set[int]:
        return set(jobs.due(session, INGEST, now, now - timedelta(seconds=60), limit=3))

    late = [transact(partial(wait, study_id=1, seconds=1)) for _ in range(5)]
    early = [transact(partial(wait, study_id=1, seconds=9)) for _ in range(2)]
    other = transact(partial(wait, study_id=2, seconds=0))
    assert transact(sent) == {*early, other}
    assert transact(sent) == set(late[:3])
    assert transact(sent) == set(late[3:])
    assert transact(sent) == set()


def test_requests_that_keep_coming_do_not_hide_a_fit_that_kills_its_worker(only_study: Study) -> None:
    only_study.enrol("p")
    ends = [_dies(only_study.study_id) for _ in range(LADDERS["job"].tries)]
    assert ends == ["done"] * (LADDERS["job"].tries - 1) + ["failed"]


def _dies(study_id: int) -> str:
    """A fit is claimed, another one requested, and nobody holds the first one's lock; what becomes of it."""
    now = datetime.now(UTC)
    request = partial(refits.request, study_id=study_id, now=now, hyperparameters=False)
    job_id = transact(request).job_id
    assert transact(lambda session: jobs.claim(session, job_id, now)) is not None
    transact(request)
    sweep.sweep()
    return transact(lambda session: session.get_one(Job, job_id).state)
