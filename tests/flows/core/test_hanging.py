"""Workers that live and hang, locks that are none of ours, and a database that does not answer."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from subprocess import PIPE, STDOUT, Popen

import psycopg2
import pytest
from sqlalchemy import text

from local.embedded import Embedded
from local.state import CLONE
from models.core import connections, jobs, locks
from models.core.jobs import Job
from models.core.locks import Holder
from models.core.session import transact
from settings import settings
from tests.local.families import eventually
from tests.models.core.test_grants import Roles, granted
from tests.support.configured import configured
from tests.support.study import Study, begin
from workers.core import sweep
from workers.core.kinds import alone

__all__ = ["granted"]
WORKER = """
import sys
from datetime import UTC, datetime
from models.core import jobs
from models.core.session import transact
from workers.core.claims import guarded
from workers.core.kinds import alone

def run(job_id):
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    print("claimed", flush=True)
    guarded(job, lambda: (sys.stdin.readline(), store(job)))

def store(job):
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC), {"by": "the hanging one"}))

alone(int(sys.argv[1]), run)
"""


def end_a_window(study: Study) -> int:
    """The queued ingest job of a window."""
    study.enrol("ann")
    study.decide("ann")
    return int(study.end("ann")["job_id"])


@pytest.fixture
def as_its_role(embedded: Embedded, granted: Roles) -> Iterator[Study]:
    """A study of the service as the role of a production, which is neither superuser nor owner."""
    with configured(embedded, embedded.database_url(granted.database)) as owner:
        study = begin(owner)
    with configured(embedded, granted.url(granted.service)) as service:
        yield replace(study, service=service)


@contextmanager
def working(job_id: int) -> Iterator[Popen[str]]:
    """A worker that has claimed a job, and goes on when it is sent a line."""
    command = [sys.executable, "-c", WORKER, str(job_id)]
    with Popen(command, cwd=CLONE, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True) as worker:
        assert worker.stdout is not None
        try:
            while worker.stdout.readline() != "claimed\n":
                assert worker.poll() is None
            yield worker
        finally:
            worker.kill()


def found(job_id: int) -> Job:
    return transact(lambda session: session.get_one(Job, job_id))


def sweep_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A sweep that takes a claim of this age for one that hangs."""
    monkeypatch.setenv("KAIROS_CLAIM_SECONDS", str(seconds))
    settings.cache_clear()
    sweep.sweep()


def test_the_job_of_a_worker_that_hangs_is_done_by_another_one_and_only_by_that(
    as_its_role: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = end_a_window(as_its_role)
    with working(job_id) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        sweep_after(monkeypatch, 3600)
        assert found(job_id).state == "running"
        sweep_after(monkeypatch, 0.001)
        assert found(job_id).state == "queued"
        assert eventually(lambda: is_done_by_another(job_id))
        assert found(job_id).result == {"by": "another one"}
        os.kill(worker.pid, signal.SIGCONT)
        told, _ = worker.communicate("go on\n", timeout=120)
        assert "claim lost" in told
        assert worker.returncode == 0
    assert found(job_id).result == {"by": "another one"}


def is_done_by_another(job_id: int) -> bool:
    alone(job_id, finish)
    return found(job_id).state == "done"


def finish(job_id: int) -> None:
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    assert job is not None
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC), {"by": "another one"}))


@contextmanager
def holding(url: str, job_id: int) -> Iterator[None]:
    """Somebody has what would be a job's lock. Raises psycopg2.OperationalError where the block ended it."""
    with closing(psycopg2.connect(url.replace("postgresql+psycopg2", "postgresql"))) as connection:
        connection.autocommit = True
        with connection.cursor() as asking:
            asking.execute("SELECT pg_advisory_lock(%s)", [locks.JOBS + job_id])
            yield
            asking.execute("SELECT 1")


def claim(job_id: int) -> None:
    assert transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC))) is not None


def test_a_session_of_another_role_stays_and_stops_no_sweep(
    as_its_role: Study, embedded: Embedded, granted: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = end_a_window(as_its_role)
    claim(job_id)
    with holding(embedded.database_url(granted.database), job_id):
        sweep_after(monkeypatch, 0.001)
        assert found(job_id).state == "queued"


def test_a_lock_in_another_database_of_the_server_is_no_sign_of_life_and_is_let_be(
    only_study: Study, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = end_a_window(only_study)
    claim(job_id)
    with holding(embedded.database_url("postgres"), job_id):
        sweep_after(monkeypatch, 3600)
        assert found(job_id).state == "queued"
        claim(job_id)
        sweep_after(monkeypatch, 0.001)


def test_a_database_that_hangs_is_not_waited_for_by_who_holds_a_lock(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only_study
    monkeypatch.setattr(locks, "LONGEST_ANSWER_SECONDS", 0.5)
    locks._watch.cache_clear()
    with closing(Holder()) as holder, ThreadPoolExecutor(1) as pool:
        holder.check()
        pid = holder._connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = pool.submit(holder.check).exception(timeout=60)
        finally:
            os.kill(pid, signal.SIGCONT)
    locks._watch.cache_clear()
    assert isinstance(asked, psycopg2.OperationalError)


def test_both_ends_of_every_connection_look_for_a_host_that_vanished(only_study: Study) -> None:
    assert only_study
    asked = "SELECT name, source FROM pg_settings WHERE name LIKE 'tcp\\_%'"
    with connections.lent() as link, closing(Holder()) as holder:
        for driver in (link.driver, holder._connection):
            told = driver.info.dsn_parameters
            assert {name: told[name] for name in connections.KEEPALIVE} == {
                name: str(value) for name, value in connections.KEEPALIVE.items()
            }
            with driver.cursor() as cursor:
                cursor.execute(asked)
                assert set(dict(cursor.fetchall()).values()) == {"client"}
    assert transact(lambda session: session.scalar(text("SELECT 1"))) == 1
