"""Notifications: one row for each change of an incident and each channel that it goes out on.

A row is claimed by a conditional UPDATE and `attempts` is the fence, as with jobs. A worker that dies between
sending and writing it down makes the next one send again: at least once, and once where no worker dies.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Document, Id, Instant
from models.core.declarations import Export, means
from models.oversight.incidents import Change

WEBHOOK = "webhook"
EMAIL = "email"
QUEUED = "queued"
SENDING = "sending"
SENT = "sent"
FAILED = "failed"


class Notification(Base):
    """A message about change `number` of an incident on one channel, as it was at that time.

    Without an incident it publishes the head of a study's audit, whose row `number` it is.
    """

    __tablename__ = "notifications"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.WITHHELD  # of the deployment; incidents are exported
    __table_args__ = (
        UniqueConstraint("incident_id", "number", "channel"),
        CheckConstraint("channel IN ('webhook', 'email')", name="channel"),
        CheckConstraint("state IN ('queued', 'sending', 'sent', 'failed')", name="state"),
        Index(
            "ix_notifications_unfinished",
            "state",
            "run_after",
            postgresql_where=text("state IN ('queued', 'sending')"),
        ),
    )

    id: Mapped[Id]
    study_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("studies.id"))
    incident_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("incidents.id"),
        info=means("the incident; null: the head of the audit's chain"),
    )
    number: Mapped[int] = mapped_column(
        info=means("number of the incident's change, or of the audit's row", range=">= 1")
    )
    channel: Mapped[str] = mapped_column(info=means("the way it goes out"))
    message: Mapped[Document] = mapped_column(info=means("the message as it was at that time"))
    state: Mapped[str] = mapped_column(server_default=QUEUED, info=means("how far its delivery is"))
    attempts: Mapped[int] = mapped_column(
        server_default="0", info=means("how often its delivery was tried", range=">= 0")
    )
    run_after: Mapped[Instant] = mapped_column(info=means("not before", "UTC"))
    claimed_at: Mapped[Instant | None] = mapped_column(info=means("when it was last claimed", "UTC"))
    finished_at: Mapped[Instant | None] = mapped_column(info=means("when it was sent or given up", "UTC"))
    reason: Mapped[str | None]
    created_at: Mapped[CreatedAt]


def add(session: Session, change: Change, channels: list[str], now: datetime) -> None:
    """Queue a change of an incident on every channel."""
    incident = change.incident
    message = {
        "incident_id": incident.id,
        "study_id": incident.study_id,
        "kind": incident.kind,
        "change": change.what,
        "level": incident.level,
        "detail": incident.detail,
        "first_at": incident.first_at.isoformat(),
        "last_at": incident.last_at.isoformat(),
        "count": incident.count,
    }
    for channel in channels:
        session.add(
            Notification(
                study_id=incident.study_id,
                incident_id=incident.id,
                number=incident.notices,
                channel=channel,
                message=message,
                run_after=now,
            )
        )
    session.flush()


def tell(
    session: Session,
    study_id: int,
    number: int,
    message: dict[str, Any],
    channels: list[str],
    now: datetime,
) -> None:
    """Queue a message that belongs to no incident on every channel."""
    for channel in channels:
        session.add(
            Notification(study_id=study_id, number=number, channel=channel, message=message, run_after=now)
        )
    session.flush()


def claim(session: Session, notification_id: int, now: datetime) -> Notification | None:
    """Take a queued notification that is due, or None."""
    return session.scalars(
        update(Notification)
        .where(
            Notification.id == notification_id,
            Notification.state == QUEUED,
            Notification.run_after <= now,
        )
        .values(state=SENDING, attempts=Notification.attempts + 1, claimed_at=now)
        .returning(Notification)
    ).one_or_none()


def _leave(session: Session, claimed: Notification, **columns: Any) -> None:
    """Write how a claimed notification came out, unless it was put back and belongs to somebody else."""
    session.execute(
        update(Notification)
        .where(
            Notification.id == claimed.id,
            Notification.state == SENDING,
            Notification.attempts == claimed.attempts,
        )
        .values(**columns)
        .execution_options(synchronize_session=False)
    )


def finish(session: Session, claimed: Notification, now: datetime) -> None:
    """Write down that a claimed notification was delivered."""
    _leave(session, claimed, state=SENT, finished_at=now, reason=None)


def postpone(session: Session, claimed: Notification, run_after: datetime, reason: str) -> None:
    """Put a claimed notification that was not delivered back for a later try."""
    _leave(session, claimed, state=QUEUED, run_after=run_after, reason=reason)


def fail(session: Session, claimed: Notification, now: datetime, reason: str) -> None:
    """Give a claimed notification up that was not delivered."""
    _leave(session, claimed, state=FAILED, finished_at=now, reason=reason)


def put_back(session: Session, now: datetime, limit: timedelta, tries: int, reason: str) -> None:
    """Free the claims that dead workers hold: they are queued again, or failed after so many tries."""
    expired = update(Notification).where(Notification.state == SENDING, Notification.claimed_at < now - limit)
    spent = Notification.attempts >= tries
    session.execute(expired.where(spent).values(state=FAILED, finished_at=now, reason=reason))
    session.execute(expired.where(~spent).values(state=QUEUED, run_after=now))


def due(session: Session, now: datetime, limit: int) -> list[int]:
    """Return the ids of the notifications that wait and are due, oldest first."""
    return list(
        session.scalars(
            select(Notification.id)
            .where(Notification.state == QUEUED, Notification.run_after <= now)
            .order_by(Notification.id)
            .limit(limit)
        )
    )
