"""Receivers of notifications that are away, not allowed or without an end, and a task that takes too long."""

import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from models.oversight.incidents import RED
from tests.support.receivers import (
    Hook,
    drip_head,
    endless,
    listening,
)
from tests.support.study import begin
from tests.workers.oversight.test_notifications import (
    SECRET,
    Start,
    deliver,
    outcomes,
    receiver,
    see,
    start,
    states,
)
from workers.core import outgoing
from workers.oversight import notifications as notify

__all__ = ["receiver", "start"]  # fixtures


def test_a_task_that_takes_too_long_has_tried(
    start: Start, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(*_: object) -> None:
        raise SoftTimeLimitExceeded

    def hang(connection: socket.socket) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)  # as Celery tells a task
        connection.recv(1)

    monkeypatch.setattr(notify, "LADDER", notify.LADDER._replace(tries=1))
    before = signal.signal(signal.SIGUSR1, limit)
    try:
        with listening(hang) as url, start(KAIROS_WEBHOOK_URL=url, KAIROS_WEBHOOK_SECRET=SECRET) as service:
            begin(service)
            see(RED, datetime.now(UTC))
            deliver()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert outcomes(fresh_database) == [("failed", "not delivered: SoftTimeLimitExceeded")]


@pytest.mark.parametrize("private", ["true", "false"])
def test_a_host_that_is_no_name_is_a_try(start: Start, fresh_database: str, private: str) -> None:
    host = f"{'a' * 64}.example"
    hosts = {"KAIROS_OUTGOING_HOSTS": host, "KAIROS_OUTGOING_PRIVATE": private}
    with start(KAIROS_WEBHOOK_URL=f"http://{host}/", KAIROS_WEBHOOK_SECRET=SECRET, **hosts) as service:
        service.command("study", "create", "trial", "--ema-url", f"http://{host}/ema")
        see(RED, datetime.now(UTC))
        deliver()
    assert outcomes(fresh_database) == [("queued", "not delivered: LocationParseError")]


def test_a_receiver_that_is_away_gets_it_later(start: Start, fresh_database: str) -> None:
    nobody = "http://127.0.0.1:9/incidents"
    pause = {"KAIROS_RETRY_SECONDS": "60"}
    with start(KAIROS_WEBHOOK_URL=nobody, KAIROS_WEBHOOK_SECRET=SECRET, **pause) as service:
        begin(service)
        see(RED, datetime.now(UTC))
        deliver()
        for _ in range(3):
            notify.deliver_due(datetime.now(UTC))  # before the pause is over
    assert states(fresh_database) == [("webhook", "queued", 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"KAIROS_OUTGOING_HOSTS": "example.org"},
        {
            **{"KAIROS_MODE": "production", "KAIROS_REGISTRATION": "closed", "KAIROS_TLS_TERMINATED": "1"},
            "KAIROS_WEBHOOK_URL": "https://localhost:9/incidents",  # not the allowed 127.0.0.1
        },
    ],
)
def test_only_allowed_hosts_are_called(
    start: Start, receiver: Hook, fresh_database: str, settings: dict[str, str]
) -> None:
    given = {"KAIROS_WEBHOOK_URL": receiver.url, "KAIROS_WEBHOOK_SECRET": SECRET, **settings}
    with start(**given) as service:
        service.command("study", "create", "trial", "--ema-url", "https://app.example.org/ema")
        see(RED, datetime.now(UTC))
        deliver()
    assert receiver.got == []
    assert outcomes(fresh_database) == [("queued", "the host is not in KAIROS_OUTGOING_HOSTS")]


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [(drip_head, "queued", "not delivered: ReadTimeout"), (endless, "sent", None)],
)
def test_a_receiver_without_an_end_holds_nobody(
    start: Start,
    fresh_database: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[socket.socket], None],
    outcome: str,
    reason: str | None,
) -> None:
    monkeypatch.setattr(outgoing, "TOTAL_SECONDS", 0.3)
    with (
        listening(answer) as url,
        start(KAIROS_WEBHOOK_URL=url, KAIROS_WEBHOOK_SECRET=SECRET, KAIROS_RETRY_SECONDS="60") as service,
    ):
        begin(service)
        see(RED, datetime.now(UTC))
        began = time.monotonic()
        deliver()
        assert time.monotonic() - began < 5
    assert outcomes(fresh_database) == [(outcome, reason)]
