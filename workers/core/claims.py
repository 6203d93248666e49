"""Claims: guarding the work on a claimed job, and deciding how often the job is tried after an error."""

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
from models.core.objects import StoreAway
from models.core.session import transact
from settings import settings
from workers.core import kinds
from workers.core.celery_app import log

LADDER = LADDERS["job"]
FREE = 10  # times that a job is given back, without counting, for what may be its own doing
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, for a database that restarts
AWAY = "the database was away"


def guarded(job: Job, work: Callable[[], None]) -> None:
    """Do the work of a claimed job; if it fails, write down how, so that no job stays claimed by nobody.

    1. The work is done. If the claim is lost meanwhile, the job is another worker's: nothing is written.
    2. After any other error the job is queued again, or failed, by the kind of the error.
    3. If the database is away, step 2 is tried again for some 15 seconds. Then the error is raised, and the
       sweep frees the claim.
    """
    bind_contextvars(study_id=job.study_id)
    try:
        try:
            work()
        except LostClaim:
            raise
        except Exception as error:
            for pause in PAUSES:
                time.sleep(pause)
                # a database that restarts is back within seconds
                with suppress(DBAPIError, psycopg2.Error):
                    transact(_record_failure, job, error)
                    break
            else:
                raise
    except LostClaim as lost:  # also from step 2
        log.warning("claim lost", job_id=job.id, reason=str(lost))


def _record_failure(session: Session, job: Job, error: Exception) -> None:
    """Queue a job again after an error that may pass, or fail it. Raises LostClaim."""
    reason = f"the service failed: {type(getattr(error, 'orig', error)).__name__}"
    if db_errors.is_away(error) or db_errors.lost_a_race(error):
        if db_errors.is_away(error):
            reason = AWAY
        # A server that says so itself is to blame: such a job is tried until it succeeds. A connection that
        # broke without a word may have been broken by the job, so that only some of these tries are free.
        give_back(session, job, reason, blameless=db_errors.code_of(error) is not None)
    elif db_errors.may_pass(error) or isinstance(error, StoreAway):
        _try_again(session, job, reason)
    else:
        # any other error would come again at each try
        log.error("job failed", job_id=job.id, study_id=job.study_id, error=where(error))
        _fail(session, job, reason)


def give_back(session: Session, job: Job, reason: str, blameless: bool = False) -> None:
    """Queue the claimed job again after a growing pause, without counting this try. Raises LostClaim.

    Unless the job is `blameless`, only FREE tries in a row do not count.
    """
    # a job that was last given back for another reason, as by an open circuit, has another code: from zero
    released = job.attempts - job.tries if job.code == OWN_FAULT else 0
    if released >= FREE and not blameless:
        _try_again(session, job, reason)
        return
    log.warning("job given back", job_id=job.id, reason=reason)
    jobs.release(session, job, _next_try(released), OWN_FAULT, reason)


def _try_again(session: Session, job: Job, reason: str) -> None:
    """Queue the claimed job again after a growing pause; after its last try fail it. Raises LostClaim."""
    log.warning("job tried in vain", job_id=job.id, reason=reason)
    if job.tries < LADDER.tries:
        jobs.postpone(session, job, _next_try(job.tries), OWN_FAULT, reason)
    else:
        # a job of a kind with slow tries, an ingest, is woken then
        wake_at = datetime.now(UTC) + timedelta(seconds=settings().slow_retry_seconds)
        _fail(session, job, reason, wake_at)


def _next_try(failures: int) -> datetime:
    """Return the time of the next try after so many failures; without failures, now."""
    seconds = backoff(failures, settings().retry_seconds, LADDER.longest)
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _fail(session: Session, job: Job, reason: str, wake_at: datetime | None = None) -> None:
    """Fail a job by the service's own fault, and settle what waits for it. Raises LostClaim."""
    bind_contextvars(outcome="failed")
    jobs.fail(session, job, datetime.now(UTC), OWN_FAULT, reason, wake_at)
    kinds.settle(session, job)
