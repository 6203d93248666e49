"""A study whose incidents are told to a webhook, and what a test does behind its back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from local.embedded import Embedded
from tests.support.configured import configured
from tests.support.receivers import Hook, hook
from tests.support.study import Study, begin
from workers.oversight import notifications, watchdog

SECRET = "a secret of the webhook"


@dataclass
class Place:
    """A study with one participant, ann; its incidents and the webhook that is sent them."""

    study: Study
    receiver: Hook
    start: datetime = field(default_factory=lambda: datetime.now(UTC))

    def look(self, after: timedelta) -> dict[str, dict[str, Any]]:
        """The open incidents by kind, after the watchdog looked so long after the test's start."""
        watchdog.run(self.start + after)
        return self.open()

    def open(self) -> dict[str, dict[str, Any]]:
        """The open incidents by kind."""
        return {one["kind"]: one for one in self.listed("?open=true")}

    def listed(self, query: str = "") -> list[dict[str, Any]]:
        """GET /incidents."""
        answer = self.study.call("GET", f"/incidents{query}", role="researcher")
        found: list[dict[str, Any]] = answer.get_json()["incidents"]
        return found

    def acknowledge(self, incident_id: int) -> None:
        """An admin has seen to it."""
        answer = self.study.call("POST", f"/incidents/{incident_id}/acknowledge", role="admin")
        assert answer.status_code == 200, answer.text

    def is_over(self, kind: str, after: timedelta) -> bool:
        """Whether the kind turned green when the watchdog looked at that time."""
        assert kind not in self.look(after)
        return self.is_green(kind)

    def is_green(self, kind: str) -> bool:
        """Whether the last incident of a kind is over."""
        last = [one for one in self.listed() if one["kind"] == kind][-1]
        return last["level"] == "green" and last["resolved_at"] is not None

    def point(self, user_id: str = "ann", ended: bool = True) -> None:
        """One decision, and the end of its window."""
        self.study.decide(user_id)
        if ended:
            self.study.end(user_id)

    def told(self) -> list[tuple[str, str]]:
        """What the webhook has been sent of incidents, as (kind, change); what waits goes out first."""
        self.study.tamper("UPDATE notifications SET run_after = least(run_after, now())")
        notifications.deliver_due(datetime.now(UTC))
        messages = [json.loads(body) for _, body in self.receiver.got]
        return [(one["kind"], one["change"]) for one in messages if one["incident_id"]]


@contextmanager
def watched(embedded: Embedded, database_url: str) -> Iterator[Place]:
    """The service with a study and a webhook; at the end every incident that there was has been told."""
    with hook() as receiver:
        settings = {"KAIROS_WEBHOOK_URL": receiver.url, "KAIROS_WEBHOOK_SECRET": SECRET}
        with configured(embedded, database_url, **settings) as service:
            study = begin(service)
            # a second act of the audit, for tests that alter one
            account = ("client", "create", f"second@{study.name}", "--study", study.name, "--role", "client")
            service.command(*account)
            study.enrol("ann")
            place = Place(study, receiver)
            yield place
            opened = [kind for kind, change in place.told() if change == "opened"]
            assert sorted(opened) == sorted(row["kind"] for row in study.rows("SELECT kind FROM incidents"))
