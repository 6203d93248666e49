"""The daily look at the audit tells its head, where that is wanted; test_night.py breaks the chain."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import audit_chain
from local.embedded import Embedded
from models.core import audit, studies
from models.core.session import transact
from tests.support.configured import configured
from tests.support.receivers import Hook, hook
from tests.support.study import Study, begin
from workers.oversight import audit as heads
from workers.oversight import notifications

SECRET = "a secret of the webhook"


@pytest.fixture
def receiver() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture
def hooked(embedded: Embedded, fresh_database: str, receiver: Hook) -> Iterator[Study]:
    """A study of a service with a webhook."""
    settings = {"KAIROS_WEBHOOK_URL": receiver.url, "KAIROS_WEBHOOK_SECRET": SECRET}
    with configured(embedded, fresh_database, **settings) as service:
        yield begin(service)


def test_the_head_is_posted_and_is_an_anchor(hooked: Study, receiver: Hook) -> None:
    transact(partial(heads.publish, study_id=1, now=datetime.now(UTC)))
    notifications.deliver_due(datetime.now(UTC) + timedelta(minutes=1))
    ((_, body),) = receiver.got
    message = json.loads(body)
    head = transact(lambda session: audit.head(session, 1))
    assert (message["kind"], message["study_id"]) == ("audit_head", 1)
    assert audit_chain.read_anchor(body.decode()) == audit_chain.Anchor(*head)
    hooked.call("POST", "/study/pause", {"reason": "a test"}, role="admin")
    assert transact(lambda session: audit.faults(session, 1, audit_chain.Anchor(*head))) == []


def test_the_head_is_logged_and_is_an_anchor(only_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only_study
    lines: list[str] = []

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            lines.append(json.dumps({"event": event, **fields}))

    monkeypatch.setattr(heads, "log", Log())
    heads.verify(transact(partial(studies.by_id, study_id=1)), datetime.now(UTC))
    (line,) = lines
    head = transact(lambda session: audit.head(session, 1))
    assert audit_chain.read_anchor(line) == audit_chain.Anchor(*head)
