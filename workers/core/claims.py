"""Claims: what happens to a claimed job when its work goes wrong."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from algorithm.core.backoff import LADDERS, backoff
from logs import where
from models.core import db_errors, jobs
from models.core.jobs import OWN_FAULT, Job, LostClaim
from models.core.session import transact
from settings import settings
from workers.core import kinds
from workers.core.celery_app import log

LADDER = LADDERS["job"]
FREE = 10  # times that a job is given back, without counting, for what may be its own doing
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, for a database that restarts
AWAY = "the database was away"


def guarded(job: Job, work: Callable[[], None]) -> None:
    """Do the work of a claimed job, and note how it went wrong where it did.

    A database that went away is waited for a little, to be told; else the sweep does it.
    """
    bind_contextvars(study_id=job.study_id)
    try:
        try:
            work()
        except LostClaim:
            raise
        except Exception as error:
            if not _noted(job, error):
                raise
    except LostClaim as lost:
        log.warning("claim lost", job_id=job.id, reason=str(lost))


def _noted(job: Job, error: Exception) -> bool:
    """Note an error of a job; False where the database did not come back soon enough. Raises LostClaim."""
    for pause in PAUSES:
        time.sleep(pause)
        with suppress(DBAPIError, psycopg2.Error):
            transact(_note, job, error)
            return True
    return False


def _note(session: Session, job: Job, error: Exception) -> None:
    """The side at fault decides whether the job is tried again.

    Where the server says that it is its own, it is tried until it succeeds, and where it cannot say anything
    so often that it may be the job that breaks the connection, as often as one that takes too long. Any other
    error is no passing one and would come again: the job fails, and says of which kind it was.
    """
    reason = f"the service failed: {type(getattr(error, 'orig', error)).__name__}"
    if db_errors.is_away(error) or db_errors.lost_a_race(error):
        if db_errors.is_away(error):
            reason = AWAY
        give_back(session, job, reason, blameless=db_errors.code_of(error) is not None)
    elif db_errors.may_pass(error):
        _try_again(session, job, reason)
    else:
        log.error("job failed", job_id=job.id, study_id=job.study_id, error=where(error))
        _fail(session, job, reason)


def give_back(session: Session, job: Job, reason: str, blameless: bool = False) -> None:
    """Queue the claimed job again, ever later: this try does not count. Raises LostClaim.

    Unless the job is `blameless` only FREE tries do not. What was last given back for another reason, as by
    an open circuit, has another code, and begins to count anew.
    """
    released = job.attempts - job.tries if job.code == OWN_FAULT else 0
    if released >= FREE and not blameless:
        _try_again(session, job, reason)
        return
    log.warning("job given back", job_id=job.id, reason=reason)
    jobs.release(session, job, _later(released), OWN_FAULT, reason)


def _try_again(session: Session, job: Job, reason: str) -> None:
    """Ever later and a limited number of times; an ingest then on the slow schedule."""
    log.warning("job tried in vain", job_id=job.id, reason=reason)
    if job.tries < LADDER.tries:
        jobs.postpone(session, job, _later(job.tries), OWN_FAULT, reason)
    else:
        slowly = datetime.now(UTC) + timedelta(seconds=settings().slow_retry_seconds)
        _fail(session, job, reason, slowly)


def _later(failures: int) -> datetime:
    """The time of the next try after so many failures: the first time at once."""
    seconds = backoff(failures, settings().retry_seconds, LADDER.longest)
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _fail(session: Session, job: Job, reason: str, again: datetime | None = None) -> None:
    bind_contextvars(outcome="failed")
    jobs.fail(session, job, datetime.now(UTC), OWN_FAULT, reason, again)
    kinds.settle(session, job)
