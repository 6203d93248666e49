"""The nightly look at a study's audit: its chain is verified, and its head is told to the outside.

Whoever keeps what is told can later find a tail that was cut off, or a chain that was written anew.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from models.core import audit
from models.core.session import transact
from models.core.studies import Study
from models.oversight import notifications
from models.oversight.incidents import RED, Condition, Kind
from workers.core.celery_app import log
from workers.oversight import notifications as notify
from workers.oversight.watchdog import record


def verify(study: Study, now: datetime) -> None:
    """Look for faults of the chain, and log its head."""
    faults = transact(lambda session: audit.faults(session, study.id))
    for fault in faults:
        log.error("audit is not whole", study_id=study.id, fault=fault)
    found = [Condition(Kind.AUDIT_BROKEN, RED, {"faults": len(faults)})] if faults else []
    record(study.id, [Kind.AUDIT_BROKEN], found, now)
    head = transact(lambda session: audit.head(session, study.id))
    log.info("audit head", study_id=study.id, seq=head.seq, hash=head.hash)


def publish(session: Session, study_id: int, now: datetime) -> None:
    """Have the chain's head told on every channel."""
    head = audit.head(session, study_id)
    message = audit.published(head, study_id, now)
    notifications.tell(session, study_id, head.seq, message, notify.channels(), now)
