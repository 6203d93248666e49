"""The watchdog: looks for what did not happen, writes it down as incidents, and has it told."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from algorithm.trial.protocol import load
from models.core import heartbeats, studies
from models.core.heartbeats import BEAT, WORKERS
from models.core.session import transact
from models.core.studies import Study
from models.oversight import fidelity, incidents, notifications
from models.oversight.incidents import RED, Condition, Kind
from models.trial import protocols
from settings import settings
from workers.core import isolated
from workers.core.celery_app import log
from workers.oversight import notifications as notify
from workers.oversight.conditions import CHECKS, Look


def run(now: datetime | None = None) -> None:
    """Look at the deployment and at every study, then send what is to be told.

    It is sent whatever the looks met: they are made anew every minute, and who is to be told waits.
    """
    now = now or datetime.now(UTC)
    transact(lambda session: heartbeats.touch(session, WORKERS, now))
    try:
        decided_before = min(now, transact(fidelity.oldest_transaction) or now)
        isolated.attempt(
            [None, *transact(studies.ids)],
            lambda study_id: _look(study_id, now, decided_before),
            event="study cannot be watched",
            name="study_id",
        )
    finally:
        notify.send_due(now)


def _look(study_id: int | None, now: datetime, decided_before: datetime) -> None:
    """At a study; None: at the deployment."""
    if study_id is None:
        record(None, incidents.OF_THE_DEPLOYMENT, _deployment(now), now)
    else:
        _watch(study_id, now, decided_before)


def _deployment(now: datetime) -> list[Condition]:
    """Beat's silence. A worker runs this: of theirs there is nothing to record, only to resolve."""
    last = transact(lambda session: heartbeats.last(session, BEAT))
    if last is None or now - last < timedelta(seconds=settings().silence_seconds):
        return []
    return [Condition(Kind.BEAT_SILENT, RED, {"seconds": round((now - last).total_seconds())})]


def _watch(study_id: int, now: datetime, decided_before: datetime) -> None:
    study, document = transact(partial(_loaded, study_id))
    look = Look(study, load(document), now, decided_before)
    looked_for: list[Kind] = []  # what cannot be looked at is neither there nor over
    found: list[Condition] = []

    def check(kind: Kind) -> None:
        condition = transact(lambda session: CHECKS[kind](session, look))
        looked_for.append(kind)
        found.extend([condition] if condition else [])

    with bound_contextvars(study_id=study_id):
        isolated.attempt(CHECKS, check, event="check failed", name="kind")
    record(study_id, looked_for, found, now)


def _loaded(study_id: int, session: Session) -> tuple[Study, dict[str, Any]]:
    """A study, and the document of its protocol in force."""
    study = studies.by_id(session, study_id)
    return study, protocols.in_force(session, study).document


def record(study_id: int | None, looked_for: Iterable[Kind], found: list[Condition], now: datetime) -> None:
    """Write down which of the kinds that were looked for hold now, and queue what is to be told of it."""
    changes = transact(partial(_record, study_id, tuple(looked_for), found, now))
    for incident_id, kind, level, what in changes:
        told = {"kind": kind, "incident_level": level, "what": what}
        log.warning("incident", incident_id=incident_id, study_id=study_id, **told)


def _record(
    study_id: int | None,
    looked_for: tuple[Kind, ...],
    found: list[Condition],
    now: datetime,
    session: Session,
) -> list[tuple[int, str, str, str]]:
    remind = timedelta(hours=settings().remind_hours)
    by_kind = {condition.kind: condition for condition in found}
    changes = incidents.observe(session, study_id, looked_for, by_kind, now, remind)
    for change in changes:
        notifications.add(session, change, notify.channels(), now)
    return [(one.incident.id, one.incident.kind, one.incident.level, one.what) for one in changes]
