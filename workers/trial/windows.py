"""Windows: closing those that no app ended in time, and settling those whose ingest the service failed."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models.core import db_errors, studies
from models.core.jobs import OWN_FAULT, Job
from models.core.session import transact
from models.trial import windows
from services.trial import protocols
from services.trial import windows as service
from workers.core import isolated
from workers.core.celery_app import log, send

STALE = 10_000  # windows of a study that one run closes at most; the next run is five minutes later


def close_stale() -> None:
    """Close, in every study, the windows that are open for longer than its protocol allows.

    An error in one study does not keep the others from being looked at.
    """

    def close_in(study_id: int) -> None:
        hours = transact(protocols.in_force, study_id).schedule.window_hours
        decided_before = datetime.now(UTC) - timedelta(hours=hours)
        for participant_id in transact(windows.stale, study_id, decided_before, STALE):
            try:
                # each in a transaction of its own: a long one would keep its participants' calls waiting
                jobs = transact(service.close_stale, participant_id, decided_before, datetime.now(UTC))
            except DBAPIError as error:
                if db_errors.is_away(error):
                    raise  # as it is for all other windows
                name = type(error).__name__
                log.error("stale window stays open", participant_id=participant_id, error=name)
                continue
            for job in jobs:
                send(*job)

    isolated.each(transact(studies.ids), close_in, event="study is left out", name="study_id")


def settle_failed(session: Session, job: Job) -> None:
    """Show the window of an ingest that failed by the service's own fault as failed."""
    if job.window_id is not None:
        windows.settle(session, job.window_id, windows.FAILED, OWN_FAULT, None)
