"""What every claimed job shares: what happens when its work goes wrong."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg2
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from logs import where
from models import jobs, locks, windows
from models.jobs import Job, LostClaim
from models.session import transact
from workers.app import log

OWN_FAULT = 321
AWAY = (OperationalError, InterfaceError, psycopg2.Error)  # the last: where a lock is asked for
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, for a database that restarts


def guarded(job: Job, work: Callable[[], None]) -> None:
    """Do the work of a claimed job.

    A database that went away is waited for a little, to give the job back; else the sweep does it. Any other
    error is no passing one and would come again: the job fails, and says of which kind it was.
    """
    bind_contextvars(study_id=job.study_id)
    try:
        work()
    except LostClaim as lost:
        log.warning("claim lost", job_id=job.id, reason=str(lost))
    except AWAY:
        if not _given_back(job):
            raise
    except Exception as error:
        bind_contextvars(outcome="failed")
        log.error("job failed", job_id=job.id, study_id=job.study_id, error=where(error))
        reason = f"the service failed: {type(error).__name__}"
        transact(lambda session: _fail(session, job, reason))


def alone(job_id: int, run: Callable[[int], None]) -> None:
    """Run a job under its lock: as long as this process lives and works at it, the sweep lets it be."""
    with locks.of_job(job_id) as ours:
        if ours:
            run(job_id)


def _given_back(job: Job) -> bool:
    """Whether the database came back soon enough to take the job."""
    for pause in PAUSES:
        time.sleep(pause)
        try:
            transact(lambda session: jobs.release(session, job, datetime.now(UTC)))
        except LostClaim:
            pass
        except AWAY:
            continue
        log.warning("job given back", job_id=job.id, reason="the database was away")
        return True
    return False


def _fail(session: Session, job: Job, reason: str) -> None:
    jobs.fail(session, job, datetime.now(UTC), OWN_FAULT, reason)
    if job.window_id is not None:
        windows.settle(session, job.window_id, windows.FAILED, OWN_FAULT, None)
