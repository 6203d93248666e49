"""Incidents: things that should have happened and did not, or happened and should not have.

At most one incident of a kind is open in a study; while its condition holds, `last_at` and `count` move. One
that was not seen for a while is over: green. Rows hold ids and numbers only.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import NamedTuple

from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, ForeignKey, Index, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Document, Id, Instant
from models.core.declarations import Export, means

RED = "red"
YELLOW = "yellow"
GREEN = "green"

OPENED = "opened"
WORSENED = "worsened"
REMINDER = "reminder"
RESOLVED = "resolved"
CALM = timedelta(
    minutes=5
)  # for so long must a condition be gone, or one that comes and goes would be many incidents


class Kind(StrEnum):
    """The kinds of incidents; docs/operations.md says of each what it is seen by and what to look at."""

    NO_DECISION = auto()
    WINDOW_NOT_ENDED = auto()
    WINDOW_NOT_INGESTED = auto()
    REFIT_LATE = auto()
    REFIT_WITHOUT_ROWS = auto()
    QUEUE_OLD = auto()
    CIRCUIT_OPEN = auto()
    FALLBACKS = auto()
    AT_BOUND = auto()
    RANDOMISATION = auto()
    AUDIT_BROKEN = auto()
    REPLAY_DIVERGED = auto()
    STATISTICS_DIFFER = auto()
    BEAT_SILENT = auto()
    WORKERS_SILENT = auto()


OF_THE_DEPLOYMENT = (Kind.BEAT_SILENT, Kind.WORKERS_SILENT)


class Incident(Base):
    """One condition from when it was first seen until it is over. study_id: None where it is everybody's.

    detail: ids and numbers as they were last seen. notices: how often it was notified, last as
    `notified_level` at `notified_at`.
    """

    __tablename__ = "incidents"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.ROWS
    __table_args__ = (
        CheckConstraint("level IN ('red', 'yellow', 'green')", name="level"),
        CheckConstraint("(level = 'green') = (resolved_at IS NOT NULL)", name="green_is_over"),
        CheckConstraint(
            "(study_id IS NULL) = (kind IN ('beat_silent', 'workers_silent'))", name="of_a_study_or_all"
        ),
        Index(
            "uq_incidents_open",
            "study_id",
            "kind",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_incidents_study_id_id", "study_id", "id"),
    )

    id: Mapped[Id]
    study_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("studies.id"))
    kind: Mapped[str] = mapped_column(info=means("what is or was wrong"))
    level: Mapped[str] = mapped_column(info=means("how bad it is; green once it is over"))
    detail: Mapped[Document] = mapped_column(info=means("ids and numbers as they were last seen"))
    first_at: Mapped[Instant] = mapped_column(info=means("when it was first seen", "UTC"))
    last_at: Mapped[Instant] = mapped_column(info=means("when it was last seen", "UTC"))
    count: Mapped[int] = mapped_column(server_default="1", info=means("how often it was seen", range=">= 0"))
    resolved_at: Mapped[Instant | None] = mapped_column(info=means("when it was over", "UTC"))
    acknowledged_by: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("clients.id"), info=means("number of the account that acknowledged it")
    )
    acknowledged_at: Mapped[Instant | None] = mapped_column(info=means("when it was acknowledged", "UTC"))
    notices: Mapped[int] = mapped_column(
        server_default="0", info=means("how often somebody was told", range=">= 0")
    )
    notified_level: Mapped[str | None] = mapped_column(info=means("the level last told"))
    notified_at: Mapped[Instant | None] = mapped_column(info=means("when it was last told", "UTC"))


class Condition(NamedTuple):
    """A condition that holds now: its kind, how bad it is (red or yellow), and the numbers it was seen by."""

    kind: Kind
    level: str
    detail: dict[str, float]


class Change(NamedTuple):
    """A change of an incident that is to be notified: `what` is opened, worsened, reminder or resolved."""

    incident: Incident
    what: str


def observe(
    session: Session,
    study_id: int | None,
    looked_for: Iterable[Kind],
    conditions: Mapping[Kind, Condition],
    now: datetime,
    remind: timedelta,
) -> list[Change]:
    """Open, repeat or resolve incidents of a study (None: of the deployment); return the changes to notify.

    looked_for: the kinds that were checked; others stay as they are. conditions: those that hold. remind: how
    often a red incident that nobody acknowledged is notified again.
    """
    open_incidents = session.scalars(
        select(Incident)
        .where(Incident.study_id.is_not_distinct_from(study_id), Incident.resolved_at.is_(None))
        .with_for_update()
    )
    by_kind = {incident.kind: incident for incident in open_incidents}
    changes = []
    for kind in looked_for:
        incident, condition = by_kind.get(kind), conditions.get(kind)
        if condition is not None:
            incident = _seen(session, study_id, incident, condition, now)
        elif incident is not None and now - incident.last_at >= CALM:
            incident.level, incident.resolved_at = GREEN, now
        else:
            continue
        what = _due_notice(incident, now, remind)
        if what is not None:
            incident.notices += 1
            incident.notified_level, incident.notified_at = incident.level, now
            changes.append(Change(incident, what))
    session.flush()
    return changes


def _seen(
    session: Session, study_id: int | None, incident: Incident | None, condition: Condition, now: datetime
) -> Incident:
    if incident is None:
        incident = Incident(study_id=study_id, kind=condition.kind, first_at=now, count=0, notices=0)
        session.add(incident)
    incident.level, incident.detail = condition.level, condition.detail
    incident.last_at = now
    incident.count += 1
    return incident


def _due_notice(incident: Incident, now: datetime, remind: timedelta) -> str | None:
    """Return the change to notify, or None. Of an acknowledged incident only a worsening is notified."""
    if incident.notified_level is None or incident.notified_at is None:
        return OPENED
    if incident.level == RED and incident.notified_level != RED:
        return WORSENED
    if incident.acknowledged_at is not None:
        return None
    if incident.level == GREEN:
        return RESOLVED
    is_due = incident.level == RED and now - incident.notified_at >= remind
    return REMINDER if is_due else None


def acknowledged_at(session: Session, study_id: int, kind: Kind) -> datetime | None:
    """Return when the open incident of a kind was acknowledged; None where it was not, or there is none."""
    return session.scalar(
        select(Incident.acknowledged_at).where(
            Incident.study_id == study_id, Incident.kind == kind, Incident.resolved_at.is_(None)
        )
    )


def last_acknowledged(session: Session, study_id: int, kind: Kind) -> Incident | None:
    """The study's incident of a kind that was acknowledged last, open or over; None where none was."""
    return session.scalar(
        select(Incident)
        .where(Incident.study_id == study_id, Incident.kind == kind, Incident.acknowledged_at.is_not(None))
        .order_by(Incident.acknowledged_at.desc())
        .limit(1)
    )


def listed(
    session: Session, study_id: int, is_open: bool | None, level: str | None, after: int, limit: int
) -> list[Incident]:
    """Incidents of the study and of the deployment by id, from the one after `after`."""
    query = select(Incident).where(_visible(study_id), Incident.id > after)
    if is_open is not None:
        query = query.where(Incident.resolved_at.is_(None) if is_open else Incident.resolved_at.is_not(None))
    if level is not None:
        query = query.where(Incident.level == level)
    return list(session.scalars(query.order_by(Incident.id).limit(limit)))


def _visible(study_id: int) -> ColumnElement[bool]:
    return or_(Incident.study_id == study_id, Incident.study_id.is_(None))


def acknowledge(
    session: Session, study_id: int, incident_id: int, client_id: int | None, now: datetime
) -> Incident | None:
    """Note the account that has seen to an incident of the study or the deployment; None where there is none.

    The first account stays.
    """
    incident = session.scalars(
        select(Incident).where(_visible(study_id), Incident.id == incident_id).with_for_update()
    ).one_or_none()
    if incident is not None and incident.acknowledged_at is None:
        incident.acknowledged_by, incident.acknowledged_at = client_id, now
        session.flush()
    return incident
