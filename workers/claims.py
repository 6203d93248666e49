"""What every claimed job shares: what happens when its work goes wrong."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from logs import where
from models import jobs, windows
from models.jobs import Job, LostClaim
from models.session import transact
from workers.app import log

OWN_FAULT = 321


def guarded(job: Job, work: Callable[[], None]) -> None:
    """Do the work of a claimed job.

    While the database is away nothing can be written: the claim expires and the sweep puts the job back. Any
    other error is no passing one and would come again: the job fails, and says of which kind it was.
    """
    bind_contextvars(study_id=job.study_id)
    try:
        work()
    except LostClaim as lost:
        log.warning("claim lost", job_id=job.id, reason=str(lost))
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        bind_contextvars(outcome="failed")
        log.error("job failed", job_id=job.id, study_id=job.study_id, error=where(error))
        reason = f"the service failed: {type(error).__name__}"
        transact(lambda session: _fail(session, job, reason))


def _fail(session: Session, job: Job, reason: str) -> None:
    jobs.fail(session, job, datetime.now(UTC), OWN_FAULT, reason)
    if job.window_id is not None:
        windows.settle(session, job.window_id, windows.FAILED, OWN_FAULT, None)
