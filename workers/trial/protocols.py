"""Protocol versions that come in force at a later time than they were approved."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from models.core import audit, studies
from models.core.audit import SERVICE, Actor
from models.core.jobs import QueuedJob
from models.core.session import transact
from models.trial import protocols
from models.trial.acts import TrialAct
from services.trial import protocols as service
from workers.core.celery_app import log, send


def enter_due() -> None:
    """Let the versions come in force that are due, each study in a transaction of its own."""
    now = datetime.now(UTC)
    for study_id in transact(protocols.waiting, now):
        for job in transact(_enter, study_id, now):
            send(*job)


def _enter(session: Session, study_id: int, now: datetime) -> list[QueuedJob]:
    """Let a study's version that is due come in force; return the jobs to be sent."""
    study = studies.locked(session, study_id)
    version = protocols.due(session, study, now)
    if version is None:  # another worker was quicker
        return []
    entered = service.enter(session, study, version, now)
    actor = Actor(study_id, role=SERVICE)
    act, reason = TrialAct.PROTOCOL_IN_FORCE, "its time has come"
    audit.note(session, actor, act, reason, before=entered.before, after=entered.after)
    log.info("protocol in force", study_id=study_id, version=version.version, begins_anew=bool(entered.jobs))
    return entered.jobs
