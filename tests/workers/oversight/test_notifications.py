"""Notifications, to a real HTTP server and a real mail server: what is told, when and how often."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from local.embedded import Embedded
from models.core.session import transact
from models.oversight import notifications
from models.oversight.incidents import RED, YELLOW, Condition, Kind
from tests.support.configured import configured
from tests.support.receivers import (
    Hook,
    hook,
)
from tests.support.service import Service
from tests.support.study import Study, begin, cursor
from workers.oversight import notifications as notify
from workers.oversight import watchdog

SECRET = "a secret of the webhook"
HOUR = timedelta(hours=1)
Start = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture
def start(embedded: Embedded, fresh_database: str) -> Start:
    """The service with one study, under more settings."""
    return partial(configured, embedded, fresh_database, KAIROS_RETRY_SECONDS="0.01")


@pytest.fixture
def hooked(start: Start, receiver: Hook) -> Iterator[Study]:
    """A study of a service with a webhook."""
    with start(KAIROS_WEBHOOK_URL=receiver.url, KAIROS_WEBHOOK_SECRET=SECRET) as service:
        yield begin(service)


def see(level: str | None, now: datetime) -> None:
    """The watchdog's look at the study: an old queue, at this level or (None) not."""
    found = [] if level is None else [Condition(Kind.QUEUE_OLD, level, {"jobs": 3})]
    watchdog.record(1, [Kind.QUEUE_OLD], found, now)


def deliver(times: int = 1) -> None:
    """Deliver what waits, as if its time had come."""
    early = text("UPDATE notifications SET run_after = least(run_after, now())")
    for _ in range(times):
        transact(lambda session: session.execute(early))
        notify.deliver_due(datetime.now(UTC))


def changes(receiver: Hook) -> list[str]:
    return [json.loads(body)["change"] for _, body in receiver.got]


def states(database_url: str) -> list[tuple[str, str, int]]:
    with cursor(database_url) as found:
        found.execute("SELECT channel, state, attempts FROM notifications ORDER BY id")
        return [(row["channel"], row["state"], row["attempts"]) for row in found.fetchall()]


def outcomes(database_url: str) -> list[tuple[str, str | None]]:
    with cursor(database_url) as found:
        found.execute("SELECT state, reason FROM notifications ORDER BY id")
        return [(row["state"], row["reason"]) for row in found.fetchall()]


def test_a_change_is_posted_once_and_signed(hooked: Study, receiver: Hook, fresh_database: str) -> None:
    now = datetime.now(UTC)
    see(YELLOW, now)
    see(YELLOW, now + HOUR)  # a repeat is no change
    deliver(times=3)
    ((headers, body),) = receiver.got
    message = json.loads(body)
    assert {name: message[name] for name in ("study_id", "kind", "change", "level", "detail", "count")} == {
        **{"study_id": 1, "kind": "queue_old", "change": "opened", "level": "yellow", "count": 1},
        "detail": {"jobs": 3},
    }
    stamp, signed = (part.partition("=")[2] for part in headers["Kairos-Signature"].split(","))
    expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signed, expected)
    assert abs(int(stamp) - time.time()) < 60
    assert headers["Kairos-Delivery"] == str(message["notification_id"])
    assert states(fresh_database) == [("webhook", "sent", 1)]


def test_worse_better_and_over(hooked: Study, receiver: Hook) -> None:
    now = datetime.now(UTC)
    for hours, level in ((0, YELLOW), (1, RED), (2, YELLOW), (3, RED), (4, None)):
        see(level, now + hours * HOUR)
    deliver()
    assert changes(receiver) == ["opened", "worsened", "resolved"]


def test_a_red_one_is_told_again_until_somebody_acknowledges_it(hooked: Study, receiver: Hook) -> None:
    now = datetime.now(UTC)
    for hours in (0, 23, 25, 30):
        see(RED, now + hours * HOUR)
    (seen,) = hooked.call("GET", "/incidents?open=true", role="researcher").get_json()["incidents"]
    hooked.call("POST", f"/incidents/{seen['incident_id']}/acknowledge", role="admin")
    for hours in (60, 90):
        see(RED, now + hours * HOUR)
    see(None, now + 100 * HOUR)
    deliver()
    assert changes(receiver) == ["opened", "reminder"]


def test_an_acknowledged_one_that_grows_worse_is_told(hooked: Study, receiver: Hook) -> None:
    now = datetime.now(UTC)
    see(YELLOW, now)
    (seen,) = hooked.call("GET", "/incidents", role="researcher").get_json()["incidents"]
    hooked.call("POST", f"/incidents/{seen['incident_id']}/acknowledge", role="admin")
    see(YELLOW, now + HOUR)
    see(RED, now + 2 * HOUR)
    deliver()
    assert changes(receiver) == ["opened", "worsened"]


@pytest.mark.parametrize("refusal", [500, 404, 302, 429])
def test_what_is_not_taken_is_sent_again(
    hooked: Study, receiver: Hook, fresh_database: str, refusal: int
) -> None:
    receiver.statuses = [refusal, refusal, 200]
    receiver.headers = {"Location": receiver.url}
    see(RED, datetime.now(UTC))
    deliver(times=5)
    assert changes(receiver) == ["opened"] * 3
    assert len({headers["Kairos-Delivery"] for headers, _ in receiver.got}) == 1
    assert states(fresh_database) == [("webhook", "sent", 3)]


def test_nobody_tries_for_ever(
    hooked: Study, receiver: Hook, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LADDER", notify.LADDER._replace(tries=3))
    receiver.statuses = [500]
    see(RED, datetime.now(UTC))
    deliver(times=6)
    assert len(receiver.got) == 3
    assert states(fresh_database) == [("webhook", "failed", 3)]


def test_a_try_that_its_sender_did_not_survive_was_one(
    hooked: Study, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LADDER", notify.LADDER._replace(tries=2))
    see(RED, datetime.now(UTC))
    long_ago = text("UPDATE notifications SET claimed_at = claimed_at - interval '16 minutes'")
    for _ in range(2):
        (waiting,) = notify._due(datetime.now(UTC))
        assert transact(lambda session: notifications.claim(session, waiting, datetime.now(UTC)))  # noqa: B023
        transact(lambda session: session.execute(long_ago))
    assert notify._due(datetime.now(UTC)) == []
    assert states(fresh_database) == [("webhook", "failed", 2)]
    assert outcomes(fresh_database) == [("failed", notify.DIED)]


def test_one_message_in_two_hands_is_sent_by_one(hooked: Study, receiver: Hook) -> None:
    see(RED, datetime.now(UTC))
    (waiting,) = transact(lambda session: notifications.due(session, datetime.now(UTC), 10))
    for _ in range(3):
        notify.run(waiting)
    assert len(receiver.got) == 1


def test_a_claim_of_a_dead_worker_is_put_back(hooked: Study, receiver: Hook, fresh_database: str) -> None:
    now = datetime.now(UTC)
    see(RED, now)
    dead = transact(lambda session: notifications.claim(session, 1, now))
    assert dead is not None
    notify.deliver_due(now + timedelta(minutes=10))
    assert receiver.got == []
    with cursor(fresh_database) as found:
        found.execute("UPDATE notifications SET claimed_at = claimed_at - interval '16 minutes'")
    notify.deliver_due(now)
    assert len(receiver.got) == 1
    transact(lambda session: notifications.postpone(session, dead, now, "I was not dead"))
    assert states(fresh_database) == [("webhook", "sent", 2)]


def test_without_a_channel_there_is_nothing_to_send(start: Start, fresh_database: str) -> None:
    with start() as service:
        begin(service)
        see(RED, datetime.now(UTC))
    assert states(fresh_database) == []


def test_a_message_has_ids_and_numbers_only(hooked: Study, receiver: Hook) -> None:
    hooked.enrol("ann-whose-name-is-private")
    watchdog.run(datetime.now(UTC) + 25 * HOUR)
    deliver()
    message: dict[str, Any] = json.loads(receiver.got[0][1])
    assert message["kind"] == Kind.NO_DECISION
    assert all(isinstance(value, int | float) for value in message["detail"].values())
    assert b"ann" not in receiver.got[0][1]
