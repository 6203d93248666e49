"""Protocol versions come in force when their time has come."""

from datetime import UTC, datetime
from functools import partial

from sqlalchemy.orm import Session

from algorithm.trial import protocol
from algorithm.trial.amendments import begins_anew
from algorithm.trial.learner import prior_policy
from algorithm.trial.protocol import Protocol
from models.core import audit, jobs, studies
from models.core.session import transact
from models.core.studies import ProtocolVersion
from models.trial import protocols
from version import code_version
from workers.core.celery_app import log, send


def enter_due() -> None:
    """Let the versions come in force that are due, each study in a transaction of its own."""
    now = datetime.now(UTC)
    for study_id in transact(partial(protocols.waiting, now=now)):
        refit = transact(partial(_enter, study_id, now))
        if refit is not None:
            send(jobs.REFIT, refit)


def _enter(study_id: int, now: datetime, session: Session) -> int | None:
    """The refit job that this asked for, or None."""
    study = studies.locked(session, study_id)
    version = protocols.due(session, study, now)
    if version is None:
        return None
    old, new = _loaded(studies.protocol(session, study)), _loaded(version)
    anew = begins_anew(old.document, new.document)
    prior = protocols.prior(study, version, new, prior_policy(new), code_version()) if anew else None
    entered = protocols.enter(session, study, version, prior, now)
    audit.note(
        session,
        study_id,
        None,
        audit.PROTOCOL_IN_FORCE,
        "its time has come",
        before=entered.before,
        after=entered.after,
        role=audit.SERVICE,
    )
    log.info("protocol in force", study_id=study_id, version=version.version, begins_anew=anew)
    return entered.job_id


def _loaded(version: ProtocolVersion) -> Protocol:
    return protocol.stored(version.document, version.hash)
