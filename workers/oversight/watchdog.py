"""The watchdog: it looks for what should have happened and did not, and records and notifies incidents."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from models.core import heartbeats, studies
from models.core.heartbeats import BEAT, WORKERS
from models.core.session import transact
from models.oversight import fidelity, incidents, notifications
from models.oversight.incidents import RED, Condition, Kind
from services.trial import protocols
from settings import settings
from workers.core import isolated
from workers.core.celery_app import log
from workers.oversight import notifications as notify
from workers.oversight.conditions import CHECKS, Look


def run(now: datetime | None = None) -> None:
    """Look at the deployment and at every study once.

    1. Give the workers' sign of life.
    2. Look whether beat is silent, and do the checks of every study; record what they find as incidents. An
       error in one look does not keep the others from being taken.
    3. Send the notifications that are due, also where a database or a time limit has ended step 2: the looks
       are taken again in a minute, but people wait for notifications.
    """
    now = now or datetime.now(UTC)
    transact(heartbeats.touch, WORKERS, now)
    try:
        # what was decided before the oldest transaction still open is stored by now, if it ever is
        decided_before = min(now, transact(fidelity.oldest_transaction) or now)

        def look(study_id: int | None) -> None:
            if study_id is not None:
                _look_at_study(study_id, now, decided_before)
                return
            # beat may be silent; the workers are not, since one of them runs this
            last, conditions = transact(heartbeats.last, BEAT), list[Condition]()
            if last is not None and now - last >= timedelta(seconds=settings().silence_seconds):
                seconds = round((now - last).total_seconds())
                conditions.append(Condition(Kind.BEAT_SILENT, RED, {"seconds": seconds}))
            record(None, incidents.OF_THE_DEPLOYMENT, conditions, now)

        looks = [None, *transact(studies.ids)]
        isolated.attempt(looks, look, event="study cannot be watched", name="study_id")
    finally:
        notify.send_due(now)


def _look_at_study(study_id: int, now: datetime, decided_before: datetime) -> None:
    """Do all checks of a study, each in a transaction of its own, and record the conditions that hold."""
    study, protocol = transact(studies.by_id, study_id), transact(protocols.in_force, study_id)
    look = Look(study, protocol, now, decided_before)
    checked: list[Kind] = []  # a check that fails says neither that its condition holds nor that it is over
    conditions: list[Condition] = []

    def check(kind: Kind) -> None:
        condition = transact(CHECKS[kind], look)
        checked.append(kind)
        conditions.extend([condition] if condition else [])

    with bound_contextvars(study_id=study_id):
        isolated.attempt(CHECKS, check, event="check failed", name="kind")
    record(study_id, checked, conditions, now)


def record(study_id: int | None, checked: Iterable[Kind], conditions: list[Condition], now: datetime) -> None:
    """Record which conditions hold, of the kinds that were checked, and queue notifications of the changes.

    study_id: None for the deployment. A kind that was checked and does not hold ends its incident.
    """
    kinds = tuple(checked)
    by_kind = {condition.kind: condition for condition in conditions}
    remind = timedelta(hours=settings().remind_hours)

    def write(session: Session) -> list[dict[str, Any]]:
        changes = incidents.observe(session, study_id, kinds, by_kind, now, remind)
        for change in changes:
            notifications.add(session, change, notify.channels(), now)
        return [
            {
                "incident_id": change.incident.id,
                "study_id": study_id,
                "kind": change.incident.kind,
                "incident_level": change.incident.level,
                "what": change.what,
            }
            for change in changes
        ]

    for fields in transact(write):  # logged once it is committed: the transaction may run several times
        log.warning("incident", **fields)
