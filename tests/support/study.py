"""A study of a test's own in the application of the test's process, and ways past the application."""

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
from tests.support.service import Service

REGISTRATION: dict[str, Any] = {
    "rl_start_date": "2020-01-01",
    "rl_end_date": "2099-12-31",
    "consent_start_date": "2020-01-01",
    "consent_end_date": "2099-12-31",
    "morning_notification_time_start": [800] * 7,
    "evening_notification_time_start": [1900] * 7,
}
NOT_FINISHED: dict[str, Any] = {"finished_ema": False, "app_use_flag": False}
NOBODY = "http://127.0.0.1:9/ema_study"  # the port of the discard service
ROLES = ("client", "researcher", "admin")
numbers = itertools.count(1)


@contextmanager
def cursor(database_url: str) -> Iterator[RealDictCursor]:
    """A cursor past the application; each statement commits. Triggers and foreign keys do not watch it."""
    url = database_url.replace("postgresql+psycopg2", "postgresql")
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor(cursor_factory=RealDictCursor) as opened:
            opened.execute("SET session_replication_role = replica")
            yield opened


def rows(database_url: str, statement: str, *parameters: object) -> list[dict[str, Any]]:
    """The rows of a query that sees everything."""
    with cursor(database_url) as opened:
        opened.execute(statement, parameters or None)
        return [dict(row) for row in opened.fetchall()]


def tamper(database_url: str, statement: str, *parameters: object) -> int:
    """Change rows behind the service's back and return how many they are."""
    with cursor(database_url) as opened:
        opened.execute(statement, parameters or None)
        return opened.rowcount


@dataclass
class Study:
    """One study: calls to it as its client (or another role), and its rows.

    `post_*` return the response whatever it is; the other calls must succeed and return what the test
    needs of the answer.
    """

    service: Service
    name: str
    study_id: int
    tokens: dict[str, str]  # by role

    @property
    def database_url(self) -> str:
        """The address of the service's database."""
        return self.service.database_url

    def call(
        self, method: str, path: str, body: Any = None, role: str = "client", **headers: str
    ) -> TestResponse:
        """Send one request with the token of `role` and return the response."""
        return self.service.call(method, path, body, self.tokens[role], **headers)

    def post_register(self, user_id: str, **changes: Any) -> TestResponse:
        """POST /register."""
        return self.call("POST", "/register", {"user_id": user_id, **REGISTRATION, **changes})

    def post_actions(self, user_id: str, key: str | None = None, **more: Any) -> TestResponse:
        """POST /actions; `key` is an Idempotency-Key."""
        body = {"user_id": user_id, **NOT_FINISHED, **more}
        return self.call("POST", "/actions", body, **({"Idempotency_Key": key} if key else {}))

    def post_end(self, user_id: str, key: str | None = None, **more: Any) -> TestResponse:
        """POST /end_decision_window; `key` is an Idempotency-Key."""
        body = {"user_id": user_id, **more}
        return self.call("POST", "/end_decision_window", body, **({"Idempotency_Key": key} if key else {}))

    def enrol(self, user_id: str, **changes: Any) -> int:
        """Register a participant and return the opaque id."""
        answer = self.post_register(user_id, **changes)
        assert answer.status_code == 201, answer.text
        return int(answer.json["participant_id"])  # type: ignore[index]

    def decide(self, user_id: str, **more: Any) -> dict[str, Any]:
        """Ask for a decision and return the reply."""
        answer = self.post_actions(user_id, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json)  # type: ignore[arg-type]

    def end(self, user_id: str, **more: Any) -> dict[str, Any]:
        """End the participant's window and return the reply."""
        answer = self.post_end(user_id, **more)
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

    def job(self, job_id: int) -> dict[str, Any]:
        """GET /jobs/<id>."""
        return dict(self.call("GET", f"/jobs/{job_id}").get_json()["job"])

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """The rows of a query that sees everything."""
        return rows(self.database_url, statement, *parameters)

    def tamper(self, statement: str, *parameters: object) -> int:
        """Change rows behind the service's back and return how many they are."""
        return tamper(self.database_url, statement, *parameters)

    def admit(self, name: str) -> None:
        """Add an admin, whom calls then name by `role`."""
        self.tokens[name] = _token(self.study_id, f"{name}@{self.name}", "admin")

    def age(self, rid: int, hours: float) -> None:
        """Let a decision lie `hours` further back."""
        statement = "UPDATE decisions SET act_gen_timestamp = act_gen_timestamp - %s WHERE id = %s"
        assert self.tamper(statement, timedelta(hours=hours), rid) == 1

    def windows(self, participant_id: int) -> list[tuple[int, str]]:
        """Pairs of decision index and kind of the points that are over."""
        stored = self.rows(
            "SELECT decision_index, kind FROM windows WHERE participant_id = %s ORDER BY decision_index",
            participant_id,
        )
        return [(row["decision_index"], row["kind"]) for row in stored]


def begin(
    service: Service, *settings: str, name: str = "", timezone: str = "UTC", ema_url: str = NOBODY
) -> Study:
    """Create a study with an account of each role. `settings` are keys of its protocol, as `key=value`."""
    name = name or f"study-{next(numbers)}"
    assigned = [word for setting in settings for word in ("--set", setting)]
    service.command("study", "create", name, "--ema-url", ema_url, "--timezone", timezone, *assigned)
    (row,) = rows(service.database_url, "SELECT id FROM studies WHERE name = %s", name)
    study_id = int(row["id"])
    tokens = {role: _token(study_id, f"{role}@{name}", role) for role in ROLES}
    return Study(service, name, study_id, tokens)


def _token(study_id: int, name: str, role: str) -> str:
    """A token of a new account that nobody can log in to: hashing a password would take most of a test."""
    client = transact(lambda session: accounts.create(session, study_id, name, "no hash", role))
    return auth.token_for(client, datetime.now(UTC))
