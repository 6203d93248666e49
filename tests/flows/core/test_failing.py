"""Which errors of the database fail a job, which let it be tried again, and how often: none for ever."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS
from models.core import jobs
from models.core.jobs import INGEST, OWN_FAULT, Job
from models.core.session import transact
from models.trial import refits, windows
from settings import settings
from tests.support.study import Study
from tests.workers.core.test_claims import away, claimed, shown
from workers.core import sweep
from workers.core.claims import FREE, give_back, guarded

RAISED = "DO $$ BEGIN RAISE EXCEPTION 'of a test' USING ERRCODE = '{}'; END $$"
AN_HOUR = timedelta(hours=1)

LADDER = LADDERS["job"]


def does(statement: str) -> Callable[[], None]:
    """Work that runs a statement."""

    def work() -> None:
        transact(lambda session: session.execute(text(statement)))

    return work


def found(job_id: int) -> Job:
    return transact(lambda session: session.get_one(Job, job_id))


def waits_for(job_id: int) -> float:
    """For how many seconds, to the nearest ten."""
    return round((found(job_id).run_after - datetime.now(UTC)).total_seconds(), -1)


def claimed_again(job_id: int) -> Job:
    """The job, claimed at the time that it waits for."""

    def work(session: Session) -> Job:
        again = jobs.claim(session, job_id, session.get_one(Job, job_id).run_after)
        assert again is not None
        return again

    return transact(work)


@pytest.mark.parametrize("code", ["57P01", "57P02", "57P03", "08006", "25006", "53100", "40P01"])
def test_what_is_the_servers_own_fault_counts_no_try(only_study: Study, code: str) -> None:
    job = claimed(only_study)
    guarded(job, does(RAISED.format(code)))
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.code) == ("queued", 0, OWN_FAULT)


@pytest.mark.parametrize("code", ["55P03", "57014", "53200"])
def test_what_the_database_could_not_do_in_time_is_tried_again_and_counted(
    only_study: Study, code: str
) -> None:
    job = claimed(only_study)
    guarded(job, does(RAISED.format(code)))
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.code) == ("queued", 1, OWN_FAULT)


@pytest.mark.parametrize("code", ["54000", "54001", "22012", "42P01"])
def test_what_the_database_can_never_do_fails_the_job_at_once(only_study: Study, code: str) -> None:
    job = claimed(only_study)
    guarded(job, does(RAISED.format(code)))
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.code) == ("failed", 1, OWN_FAULT)
    assert shown(only_study) == ("failed", OWN_FAULT)


def test_an_ingest_whose_statement_always_takes_too_long_fails_and_is_tried_again_slowly(
    only_study: Study,
) -> None:
    job, waits = claimed(only_study), []
    slow = does("SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)")
    for _ in range(LADDER.tries - 1):
        guarded(job, slow)
        waits.append(waits_for(job.id))
        job = claimed_again(job.id)
    assert waits == sorted(set(waits))
    guarded(job, slow)
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.code) == ("failed", LADDER.tries, OWN_FAULT)
    assert kept.reason == "the service failed: QueryCanceled"
    assert kept.run_after > datetime.now(UTC) + timedelta(seconds=settings().slow_retry_seconds) - AN_HOUR
    assert shown(only_study) == ("failed", OWN_FAULT)


def test_an_ingest_that_was_tried_again_slowly_outlives_the_death_of_a_worker(only_study: Study) -> None:
    job = claimed(only_study)
    for _ in range(LADDER.tries):
        guarded(job, does("SET LOCAL statement_timeout = 1; SELECT pg_sleep(60)"))
        later = found(job.id).run_after
        transact(jobs.wake, later, INGEST, LADDERS["back end, slowly"].tries)
        job = claimed_again(job.id)
    sweep.sweep()  # nobody holds its lock
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.reason) == ("failed", LADDER.tries + 1, sweep.DIED)
    assert kept.finished_at is not None
    assert kept.run_after > kept.finished_at
    transact(jobs.wake, kept.run_after, INGEST, LADDERS["back end, slowly"].tries)
    assert found(job.id).state == "queued"


def test_what_an_open_circuit_gave_back_counts_anew_where_the_database_goes_away(only_study: Study) -> None:
    job = claimed(only_study)
    for _ in range(FREE + 2):
        release = partial(jobs.release, job=job, run_after=datetime.now(UTC), code=320, reason="a test")
        transact(release)
        again = transact(partial(windows.claim, job_id=job.id, now=datetime.now(UTC)))
        assert again is not None
        job = again[0]
    guarded(job, away)
    kept = found(job.id)
    assert (kept.state, kept.tries, kept.code) == ("queued", 0, OWN_FAULT)
    assert waits_for(job.id) <= 0


def test_a_job_that_breaks_every_connection_waits_ever_longer_and_fails_in_the_end(only_study: Study) -> None:
    job, waits = claimed(only_study), []
    for _ in range(FREE + LADDER.tries - 1):
        guarded(job, away)
        waits.append(waits_for(job.id))
        job = claimed_again(job.id)
    assert found(job.id).tries == LADDER.tries
    assert waits[0] <= 0
    assert waits[:FREE] == sorted(waits[:FREE])
    assert LADDER.longest / 2 < max(waits) <= LADDER.longest + 10
    guarded(job, away)
    assert (found(job.id).state, shown(only_study)) == ("failed", ("failed", OWN_FAULT))


def test_a_full_disk_is_waited_for_without_an_end_and_can_be_seen(only_study: Study) -> None:
    job = claimed(only_study)
    for _ in range(FREE + LADDER.tries + 1):
        guarded(job, does(RAISED.format("53100")))
        job = claimed_again(job.id)
    kept = found(job.id)
    assert (kept.tries, kept.code, kept.reason) == (1, OWN_FAULT, "the database was away")


def test_a_connection_that_is_ended_by_the_server_counts_no_try(only_study: Study) -> None:
    job = claimed(only_study)
    guarded(job, does("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert (found(job.id).state, found(job.id).tries) == ("queued", 0)


def test_a_failure_is_noted_though_the_database_goes_away_meanwhile(
    only_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, really, gone = claimed(only_study), jobs.fail, [OperationalError("", {}, Exception())]

    def fail(*given: object) -> None:
        if gone:
            raise gone.pop()
        really(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "fail", fail)
    guarded(job, does("SELECT 1 / 0"))
    assert (found(job.id).state, shown(only_study)) == ("failed", ("failed", OWN_FAULT))


def test_requests_that_keep_coming_do_not_hide_a_fit_that_is_given_back_each_time(only_study: Study) -> None:
    ends = [_given_back(only_study.study_id) for _ in range(FREE + LADDER.tries)]
    assert ends == ["done"] * (FREE + LADDER.tries - 1) + ["failed"]


def _given_back(study_id: int) -> str:
    """A fit is claimed, another one requested, and the first one given back; what becomes of it."""
    request = partial(refits.request, study_id=study_id, now=datetime.now(UTC), hyperparameters=False)
    job = claimed_again(transact(request).job_id)
    transact(request)
    transact(give_back, job, "of a test")
    return found(job.id).state
