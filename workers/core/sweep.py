"""The sweep on the beat: jobs that were not sent, not finished, or whose worker died."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from models.core import jobs, stale_claims
from models.core.jobs import OWN_FAULT, Job
from models.core.session import transact
from settings import settings
from workers.core import kinds
from workers.core.celery_app import log, send, waiting
from workers.core.kinds import KINDS

BATCH = 500
DIED = "its worker died at every try"


def sweep() -> None:
    """Bring every job on that nobody works at.

    1. Free the claims of dead workers: their jobs are queued again, or failed after their last try.
    2. Wake the failed jobs of kinds that are tried on the slow schedule.
    3. Send the ids of jobs that are due and that no worker took.
    """
    now = datetime.now(UTC)
    freed_jobs = transact(_free_claims, now)
    if freed_jobs:
        log.warning("claims put back", jobs=[job.id for job in freed_jobs])
    for kind in KINDS.values():
        if kind.slow_tries is not None:
            transact(jobs.wake, now, kind.name, kind.slow_tries)
        # What may still lie in the broker is not sent again, or a backlog would feed itself. A job that was
        # put back after it was sent does not lie there: its `sent_at` is LONG_AGO.
        lately = timedelta(seconds=2 * settings().sweep_seconds)
        sent_before = jobs.LONG_AGO if waiting(kind.name) else now - lately
        for job_id in transact(jobs.due, kind=kind.name, now=now, sent_before=sent_before, limit=BATCH):
            send(kind.name, job_id)


def _free_claims(session: Session, now: datetime) -> list[Job]:
    """Free the claims of dead workers, and settle what waits for jobs that failed by it; return the jobs."""
    longest_claim = timedelta(seconds=settings().claim_seconds)
    slow_pause = timedelta(seconds=settings().slow_retry_seconds)

    def tries(job: Job) -> int:
        return KINDS[job.kind].tries(job)

    freed_jobs = stale_claims.put_back(session, now, longest_claim, tries, slow_pause, DIED)
    for job in freed_jobs:
        if job.state == jobs.FAILED and KINDS[job.kind].when_failed is not None:
            job.code = OWN_FAULT
            kinds.settle(session, job)
    return freed_jobs
