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
    """Free the claims of dead workers, wake slow retries, and send the ids that nobody took."""
    now = datetime.now(UTC)
    freed = transact(_put_back, now)
    if freed:
        log.warning("claims put back", jobs=[job.id for job in freed])
    for kind in KINDS.values():
        if kind.slow_tries is not None:
            transact(jobs.wake, now, kind.name, kind.slow_tries)
        _send_due(kind.name, now)


def _put_back(session: Session, now: datetime) -> list[Job]:
    """Free the claims of dead workers; settle what waits for a job that failed by it, in one transaction."""
    limit, slow = (timedelta(seconds=s) for s in (settings().claim_seconds, settings().slow_retry_seconds))
    freed = stale_claims.put_back(session, now, limit, lambda job: KINDS[job.kind].tries(job), slow, DIED)
    for job in freed:
        if job.state == jobs.FAILED and KINDS[job.kind].when_failed is not None:
            job.code = OWN_FAULT
            kinds.settle(session, job)
    return freed


def _send_due(kind: str, now: datetime) -> None:
    """Send what nobody took.

    What may still lie in a queue needs no second message, or a backlog would feed itself; what was put back
    since it was last sent does not lie there.
    """
    lately = timedelta(seconds=2 * settings().sweep_seconds)
    sent_before = jobs.LONG_AGO if waiting(kind) else now - lately
    for job_id in transact(jobs.due, kind=kind, now=now, sent_before=sent_before, limit=BATCH):
        send(kind, job_id)
