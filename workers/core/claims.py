"""What every claimed job shares: what happens when its work goes wrong."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from logs import where
from models.core import db_errors, jobs, locks
from models.core.jobs import Job, LostClaim
from models.core.objects import StoreAway
from models.core.session import transact
from models.trial import windows
from settings import settings
from workers.core.celery_app import log

OWN_FAULT = 321
TRIES = 6  # of a job for which the database takes too long, or the object store is away
FREE = 10  # times that a job is given back, without counting, for what may be its own doing
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, for a database that restarts
LONGEST_WAIT = 600.0
AWAY = "the database was away"


def guarded(job: Job, work: Callable[[], None]) -> None:
    """Do the work of a claimed job, and note how it went wrong where it did.

    A database that went away is waited for a little, to be told; else the sweep does it.
    """
    bind_contextvars(study_id=job.study_id)
    try:
        _try(job, work)
    except LostClaim as lost:
        log.warning("claim lost", job_id=job.id, reason=str(lost))


def alone(job_id: int, run: Callable[[int], None]) -> None:
    """Run a job under its lock: as long as this process lives and works at it, the sweep lets it be."""
    with locks.of_job(job_id) as ours:
        if ours:
            run(job_id)


def _try(job: Job, work: Callable[[], None]) -> None:
    try:
        work()
    except LostClaim:
        raise
    except Exception as error:
        if not _is_noted(job, error):
            raise


def _is_noted(job: Job, error: Exception) -> bool:
    """Whether the database came back soon enough to be told. Raises LostClaim."""
    for pause in PAUSES:
        time.sleep(pause)
        with suppress(DBAPIError, psycopg2.Error):
            transact(partial(_note, job, error))
            return True
    return False


def _note(job: Job, error: Exception, session: Session) -> None:
    """Whose fault it is decides whether the job is tried again.

    Where the server says that it is its own, it is tried until it succeeds, and where it cannot say anything
    so often that it may be the job that breaks the connection, as often as one that takes too long. Any other
    error is no passing one and would come again: the job fails, and says of which kind it was.
    """
    reason = f"the service failed: {type(getattr(error, 'orig', error)).__name__}"
    if db_errors.is_away(error) or db_errors.lost_a_race(error):
        told = AWAY if db_errors.is_away(error) else reason
        give_back(job, told, session, blameless=db_errors.code_of(error) is not None)
    elif db_errors.may_pass(error) or isinstance(error, StoreAway):
        _try_again(job, reason, session)
    else:
        log.error("job failed", job_id=job.id, study_id=job.study_id, error=where(error))
        _fail(job, reason, session)


def give_back(job: Job, reason: str, session: Session, blameless: bool = False) -> None:
    """Queue the claimed job again, ever later: this try does not count. Raises LostClaim.

    Unless the job is `blameless` only FREE tries do not. What was last given back for another reason, as by
    an open circuit, has another code, and begins to count anew.
    """
    released = job.attempts - job.tries if job.code == OWN_FAULT else 0
    if released >= FREE and not blameless:
        _try_again(job, reason, session)
        return
    log.warning("job given back", job_id=job.id, reason=reason)
    jobs.release(session, job, _later(released), OWN_FAULT, reason)


def _try_again(job: Job, reason: str, session: Session) -> None:
    """Ever later and a limited number of times; an ingest then on the slow schedule."""
    log.warning("job tried in vain", job_id=job.id, reason=reason)
    if job.tries < TRIES:
        jobs.postpone(session, job, _later(job.tries), OWN_FAULT, reason)
    else:
        _fail(job, reason, session, datetime.now(UTC) + timedelta(seconds=settings().slow_retry_seconds))


def _later(times: int) -> datetime:
    """When to try again after so many times: the first time at once."""
    wait = settings().retry_seconds * (2.0 ** min(times, 20) - 1)
    return datetime.now(UTC) + timedelta(seconds=min(wait, LONGEST_WAIT))


def _fail(job: Job, reason: str, session: Session, again: datetime | None = None) -> None:
    bind_contextvars(outcome="failed")
    jobs.fail(session, job, datetime.now(UTC), OWN_FAULT, reason, again)
    if job.window_id is not None:
        windows.settle(session, job.window_id, windows.FAILED, OWN_FAULT, None)
