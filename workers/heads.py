"""The daily look at the audit: every study's chain is verified, and its head is told to the outside.

Whoever keeps what is told can later find a tail that was cut off, or a chain that was written anew.
"""

from datetime import UTC, datetime
from functools import partial

from sqlalchemy.orm import Session

from models import audit, notifications, studies
from models.audit import Head
from models.incidents import RED, Condition, Kind
from models.session import transact
from models.studies import Study
from workers import notify
from workers.app import log
from workers.watch import record


def run() -> None:
    """Verify and publish, study by study."""
    now = datetime.now(UTC)
    for study in transact(studies.everyone):
        _verify(study, now)
        head = transact(partial(_publish, study.id, now))
        log.info("audit head", study_id=study.id, seq=head.seq, hash=head.hash)
    notify.send_due(now)


def _verify(study: Study, now: datetime) -> None:
    faults = transact(lambda session: audit.faults(session, study.id))
    for fault in faults:
        log.error("audit is not whole", study_id=study.id, fault=fault)
    found = [Condition(Kind.AUDIT_BROKEN, RED, {"faults": len(faults)})] if faults else []
    record(study.id, [Kind.AUDIT_BROKEN], found, now)


def _publish(study_id: int, now: datetime, session: Session) -> Head:
    head = audit.head(session, study_id)
    message = audit.published(head, study_id, now)
    notifications.tell(session, study_id, head.seq, message, notify.channels(), now)
    return head
