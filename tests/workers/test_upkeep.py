"""The sweep against a real database and broker."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from models.jobs import INGEST, Job
from models.session import transact
from tests.service import Service
from workers import upkeep
from workers.app import app, waiting


@pytest.fixture
def window_ended(service: Service) -> Iterator[None]:
    """An ended window whose job was sent long ago; its id lies in an otherwise empty broker."""
    _lose_messages()
    service.enrol("p")
    service.decide("p")
    service.end("p")
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
    upkeep.sweep()
    assert (_messages(), waiting(INGEST)) == (1, True)


@pytest.mark.usefixtures("window_ended")
def test_an_id_that_the_broker_lost_is_sent_again_once() -> None:
    _lose_messages()
    assert not waiting(INGEST)
    upkeep.sweep()
    assert _messages() == 1
    upkeep.sweep()
    assert _messages() == 1
