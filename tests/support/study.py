"""A study of a test's own in the application of the test's process, and ways to move its time."""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor
from werkzeug.test import TestResponse

from api.core import auth
from models.core import accounts
from models.core.session import transact
from tests.support.service import NOT_FINISHED, REGISTRATION, Service

NOBODY = "http://127.0.0.1:9/ema_study"  # the port of the discard service
ROLES = ("client", "researcher", "admin")
numbers = itertools.count(1)


@contextmanager
def cursor(database_url: str) -> Iterator[RealDictCursor]:
    """A cursor past the application; each statement commits. Triggers and foreign keys do not watch it."""
    url = database_url.replace("postgresql+psycopg2", "postgresql")
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor(cursor_factory=RealDictCursor) as found:
            found.execute("SET session_replication_role = replica")
            yield found


@dataclass
class Study:
    """One study: calls to it as its client (or another role), and its rows."""

    service: Service
    database_url: str
    name: str
    study_id: int
    tokens: dict[str, str]

    def call(
        self, method: str, path: str, body: Any = None, role: str = "client", **headers: str
    ) -> TestResponse:
        """One request with a token of `role`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.tokens[role]}"
        return self.service.app.test_client().open(path, method=method, json=body, headers=sent)

    def enrol(self, user_id: str, **changes: Any) -> int:
        """Register a participant and return the opaque id."""
        answer = self.call("POST", "/register", {"user_id": user_id, **REGISTRATION, **changes})
        assert answer.status_code == 201, answer.text
        return int(answer.json["participant_id"])  # type: ignore[index]

    def actions(self, user_id: str, key: str | None = None, **more: Any) -> TestResponse:
        """POST /actions."""
        body = {"user_id": user_id, **NOT_FINISHED, **more}
        return self.call("POST", "/actions", body, **({"Idempotency_Key": key} if key else {}))

    def end_window(self, user_id: str, key: str | None = None, **more: Any) -> TestResponse:
        """POST /end_decision_window."""
        body = {"user_id": user_id, **more}
        return self.call("POST", "/end_decision_window", body, **({"Idempotency_Key": key} if key else {}))

    def decide(self, user_id: str, **more: Any) -> dict[str, Any]:
        """A decision that must succeed."""
        answer = self.actions(user_id, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json)  # type: ignore[arg-type]

    def end(self, user_id: str, **more: Any) -> dict[str, Any]:
        """An end of a window that must succeed."""
        answer = self.end_window(user_id, **more)
        assert answer.status_code == 202, answer.text
        return dict(answer.json)  # type: ignore[arg-type]

    def live(self, user_id: str, points: int) -> None:
        """Let a participant pass this many decision points."""
        for _ in range(points):
            self.decide(user_id)
            self.end(user_id)

    def show(self, participant_id: int) -> dict[str, Any]:
        """GET /participants/<id>."""
        answer = self.call("GET", f"/participants/{participant_id}", role="researcher")
        return dict(answer.json["participant"])  # type: ignore[index]

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Rows of a query that sees everything."""
        with cursor(self.database_url) as found:
            found.execute(statement, parameters)
            return [dict(row) for row in found.fetchall()]

    def tamper(self, statement: str, *parameters: object) -> int:
        """Change rows behind the service's back; how many it was."""
        with cursor(self.database_url) as found:
            found.execute(statement, parameters)
            return found.rowcount

    def admit(self, name: str) -> None:
        """Another admin, whom calls name by `role`."""
        self.tokens[name] = _token(self.study_id, f"{name}@{self.name}", "admin")

    def age(self, rid: int, hours: float) -> None:
        """Let a decision lie `hours` further back."""
        statement = "UPDATE decisions SET act_gen_timestamp = act_gen_timestamp - %s WHERE id = %s"
        assert self.tamper(statement, timedelta(hours=hours), rid) == 1

    def windows(self, participant_id: int) -> list[tuple[int, str]]:
        """(decision index, kind) of the points that are over."""
        found = self.rows(
            "SELECT decision_index, kind FROM windows WHERE participant_id = %s ORDER BY decision_index",
            participant_id,
        )
        return [(row["decision_index"], row["kind"]) for row in found]


def begin(
    service: Service, database_url: str, *settings: str, timezone: str = "UTC", ema_url: str = NOBODY
) -> Study:
    """A new study with an account of each role."""
    name = f"trial-{next(numbers)}"
    assigned = [word for setting in settings for word in ("--set", setting)]
    service.command("study", "create", name, "--ema-url", ema_url, "--timezone", timezone, *assigned)
    with cursor(database_url) as found:
        found.execute("SELECT id FROM studies WHERE name = %s", (name,))
        study_id = int(found.fetchall()[0]["id"])
    tokens = {role: _token(study_id, f"{role}@{name}", role) for role in ROLES}
    return Study(service, database_url, name, study_id, tokens)


def _token(study_id: int, name: str, role: str) -> str:
    """A token of a new account that nobody can log in to: hashing a password would take most of a test."""
    client = transact(lambda session: accounts.create(session, study_id, name, "no hash", role))
    return auth.token_for(client, datetime.now(UTC))
