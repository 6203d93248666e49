"""The service as a database role that cannot rewrite history, and a reader that sees no secret."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy.orm import Session

import models
from local.embedded import Embedded
from models.core import grants, jobs
from models.core.jobs import Job
from models.core.session import transact
from models.trial import circuits, fit_parts
from tests.support.backend import BackEnd, serving
from tests.support.configured import configured
from tests.support.service import Service
from tests.support.study import Study, begin
from tests.workers.trial.test_ingest import decide_and_end, item
from workers.core import sweep
from workers.oversight import night, notifications, watchdog
from workers.trial import ingest, refit, windows

APPEND_ONLY = {
    *("decisions", "answers", "discrepancies", "learning_rows", "protocols", "policies"),
    *("idempotency_keys", "participant_zones", "audit"),
}
PASSWORD = "a password of a test"
JOIN = "what registration tokens are made of"


class Roles(NamedTuple):
    """Two roles with their rights, and how to connect as them."""

    service: str
    reader: str
    sockets: str
    database: str

    def url(self, role: str) -> str:
        return f"postgresql://{role}:{quote(PASSWORD)}@/{self.database}?host={quote(self.sockets)}"

    def run(self, role: str, statement: str) -> list[Any]:
        """Rows of a statement that `role` runs; nothing of it stays."""
        with closing(psycopg2.connect(self.url(role))) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def granted(embedded: Embedded, migrated: str) -> Iterator[Roles]:
    """A database whose owner has granted both roles their rights."""
    mark = uuid4().hex[:8]
    found = Roles(f"app-{mark}", f"reader_{mark}", str(embedded.postgres.sockets), f"roles_{mark}")
    embedded.postgres.create_database(found.database, template=migrated)
    for role in (found.service, found.reader):
        embedded.postgres.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
        )
    with configured(embedded, embedded.database_url(found.database)) as owner:
        for _ in range(2):  # repeating it changes nothing
            owner.command("database", "grant", "--app", found.service, "--reader", found.reader)
    yield found
    embedded.postgres.drop_database(found.database)
    for role in (found.service, found.reader):
        embedded.postgres.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture(scope="module")
def lived(embedded: Embedded, granted: Roles) -> Iterator[Study]:
    """A study of the service as its own role, which the owner created and which has been lived through."""
    with serving() as back_end:
        with configured(embedded, embedded.database_url(granted.database)) as owner:
            created = begin(owner, "refit.min_interval_minutes=0", name="trial", ema_url=back_end.url)
        policy = {"KAIROS_REGISTRATION": "token", "KAIROS_REGISTRATION_SECRET": JOIN}
        policy |= {"KAIROS_WEBHOOK_URL": "http://127.0.0.1:9/x", "KAIROS_WEBHOOK_SECRET": JOIN}
        with configured(embedded, granted.url(granted.service), **policy) as service:
            study = replace(created, service=service)
            _live(study, back_end)
            yield study


def _live(study: Study, back_end: BackEnd) -> None:
    """Everything that API, worker and beat do to the database."""
    study.enrol("ann")
    for number in range(3):
        decided, job_id = decide_and_end(study)
        back_end.has(item(decided, finished_ema=number == 1, seed=number, activity_question_response=True))
        ingest.run(job_id)
        refit.run(study.call("POST", "/update_parameters").get_json()["job_id"])
    study.decide("ann", app_use_flag=True)
    assert study.decide("ann", app_use_flag=False)["correction_stored"] is True
    repeat = study.call("POST", "/end_decision_window", {"user_id": "ann"}, Idempotency_Key="once")
    assert repeat.status_code == 202
    assert study.call("POST", "/study/pause", {"reason": "a test"}, role="admin").status_code == 200
    assert study.call("POST", "/study/resume", {"reason": "a test"}, role="admin").status_code == 200
    for task in (sweep.sweep, windows.close_stale, night.begin):
        task()
    transact(lambda session: session.add(circuits.Circuit(study_id=1, state="open", failures=5)))
    for _ in range(2):
        watchdog.run(datetime.now(UTC) + timedelta(hours=1))
    notifications.deliver_due(datetime.now(UTC) + timedelta(hours=1))
    back_end.status = 403
    ingest.run(repeat.get_json()["job_id"])
    (window,) = study.call("GET", "/windows?state=failed", role="admin").get_json()["windows"]
    retried = study.call("POST", f"/windows/{window['window_id']}/retry", role="admin")
    assert retried.status_code == 202
    (ann,) = study.call("GET", "/participants", role="admin").get_json()["participants"]
    withdrawn = study.call(
        "POST", f"/participants/{ann['participant_id']}/withdraw", {"reason": "a test"}, role="admin"
    )
    assert withdrawn.status_code == 200
    pinned = study.call("POST", "/policies/0/activate", {"reason": "a test"}, role="admin")
    assert pinned.get_json()["state"] == "approved"
    proposal = study.call("POST", "/study/close", {"reason": "a test"}, role="admin").get_json()
    assert proposal["state"] == "approved"
    night.run(transact(partial(jobs.add_night, study_id=1, now=datetime.now(UTC))).id)
    transact(partial(_leave_part, job_id=repeat.get_json()["job_id"]))
    token = study.service.command("study", "registration-token", "trial")["registration_token"]
    joined = {"api_user": "late", "api_pass": "a password", "study": "trial", "registration_token": token}
    assert study.service.call("POST", "/auth/register", joined).status_code == 201
    token = study.service.login("late", "a password")
    headers = {"Authorization": f"Bearer {token}"}
    assert study.service.app.test_client().post("/auth/logout", headers=headers).status_code == 200


def _leave_part(session: Session, job_id: int) -> None:
    """A part as a fit leaves it that is killed; the sweep above has already deleted what there was."""
    job = session.get_one(Job, job_id)
    (part_id,) = fit_parts.add(
        session, job, fit_parts.Basis(1, 1, 0), fit_parts.FIRST, b"", [fit_parts.Span(1, 1, 1)]
    )
    fit_parts.finish(session, part_id, b"", "somebody")


def test_every_table_has_rights_written_down() -> None:
    rights = grants.service_rights()
    assert set(rights) == set(models.metadata.tables)
    assert {table for table, right in rights.items() if right == "INSERT"} == APPEND_ONLY | {"clients"}


def test_the_service_does_all_its_work_as_its_own_role(lived: Study, granted: Roles) -> None:
    state = lived.call("GET", "/study", role="admin").get_json()
    assert (state["decisions"], state["windows"]["ingested"], state["jobs"]["running"]) == (4, 3, 0)
    assert state["policies"] > 1
    assert state["discrepancies"] > 0
    ((user,),) = granted.run(granted.service, "SELECT current_user")
    assert user == granted.service
    empty = [
        table
        for table in models.metadata.tables
        if granted.run(granted.service, f"SELECT count(*) FROM {table}") == [(0,)]
    ]
    assert empty == []  # so that every table has been written to as that role, or by the owner before


@pytest.mark.parametrize("table", sorted(APPEND_ONLY))
@pytest.mark.parametrize("statement", ["UPDATE {} SET study_id = study_id", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_service_cannot_rewrite_what_is_append_only(
    lived: Study, granted: Roles, table: str, statement: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        granted.run(granted.service, statement.format(table))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE studies SET study_key = study_key",
        "UPDATE studies SET study_key_sha256 = study_key_sha256",
        "UPDATE studies SET ema_url = ema_url",
        "DELETE FROM studies",
        "UPDATE clients SET role = 'admin'",
        "DELETE FROM clients",
        "UPDATE policy_blocks SET mean = mean",
        "TRUNCATE policy_blocks",
        "UPDATE alembic_version SET version_num = version_num",
        "CREATE TABLE more (id int)",
        "ALTER TABLE decisions DISABLE TRIGGER ALL",
        "DROP TABLE decisions",
    ],
)
def test_the_service_has_no_right_that_it_does_not_need(granted: Roles, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        granted.run(granted.service, statement)


def test_the_reader_reads_every_column_that_is_no_secret(lived: Study, granted: Roles) -> None:
    for table in models.metadata.sorted_tables:
        columns = [column.name for column in table.columns if not grants.is_secret(column)]
        granted.run(granted.reader, f"SELECT {', '.join(columns)} FROM {table}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT study_key FROM studies",
        "SELECT ema_token FROM studies",
        "SELECT * FROM studies",
        "SELECT password_hash FROM clients",
        "UPDATE participants SET phase = phase",
        "DELETE FROM jobs",
        "INSERT INTO revoked_tokens VALUES ('x', 1, now())",
        "TRUNCATE jobs",
    ],
)
def test_the_reader_sees_no_secret_and_writes_nothing(granted: Roles, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        granted.run(granted.reader, statement)


def failure(service: Service, *words: str) -> str:
    result = service.app.test_cli_runner().invoke(args=["database", "grant", *words])
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    return str(result.output.splitlines()[-1])


def test_the_password_of_another_than_the_services_role_is_left_alone(
    embedded: Embedded, granted: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAIROS_APP_PASSWORD", "not for these")
    with configured(embedded, embedded.database_url(granted.database)) as owner:
        assert "has all rights" in failure(owner, "--app", "kairos")
        owner.command("database", "grant", "--reader", granted.reader)
    with configured(embedded, granted.url(granted.service)) as service:
        assert "connect as the owner" in failure(service, "--app", granted.service)
    for role in (granted.service, granted.reader):
        assert granted.run(role, "SELECT 1") == [(1,)]
    assert embedded.postgres.ready()


def test_unfit_roles_are_refused_in_a_sentence(embedded: Embedded, granted: Roles) -> None:
    with configured(embedded, embedded.database_url(granted.database)) as owner:
        assert failure(owner) == "Error: name a role with --app, --reader or both"
        assert "two roles" in failure(owner, "--app", "x", "--reader", "x")
        assert "there is no database role 'nobody; --'" in failure(owner, "--app", "nobody; --")
        assert "has all rights" in failure(owner, "--app", "kairos")
    with configured(embedded, granted.url(granted.service)) as service:
        assert "connect as the owner" in failure(service, "--app", granted.reader)
