"""The audit's nightly check: the chain of a study is verified, and its head is logged and published.

A person outside who keeps the published heads can later detect a tail that was cut off, or a chain that was
written anew.
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
    """Check a study's chain: log each fault, record an incident if there are any, and log the head."""
    faults = transact(audit.faults, study.id)
    for fault in faults:
        log.error("audit is not whole", study_id=study.id, fault=fault)
    conditions = [Condition(Kind.AUDIT_BROKEN, RED, {"faults": len(faults)})] if faults else []
    record(study.id, [Kind.AUDIT_BROKEN], conditions, now)
    head = transact(audit.head, study.id)
    log.info("audit head", study_id=study.id, seq=head.seq, hash=head.hash)


def publish(session: Session, study_id: int, now: datetime) -> None:
    """Queue the head of a study's chain for every channel of notifications."""
    head = audit.head(session, study_id)
    message = audit.published(head, study_id, now)
    notifications.tell(session, study_id, head.seq, message, notify.channels(), now)
