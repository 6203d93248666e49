"""Participants of a study: their time zones, their dates, and how many decision points are behind them."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, UniqueConstraint, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, SMALLINT, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Document, Id, Instant, ParticipantId, StudyId
from models.core.declarations import Export, means

REGISTERED = "REGISTERED"
STARTED = "STARTED"
COMPLETED_AWAITING_REVIEW = "COMPLETED_AWAITING_REVIEW"
ENDED = "ENDED"
WITHDRAWN = "WITHDRAWN"
PHASES = (REGISTERED, STARTED, COMPLETED_AWAITING_REVIEW, ENDED, WITHDRAWN)


class Participant(Base):
    """A person in a study. `decision_index` counts the points that are over; the next one is one higher.

    `id` is opaque and stands in URLs, messages and logs; `user_id` is the app's own name for the person.
    `corrections` counts corrected outcomes. `removed_row_seq`: policies of that `row_seq` or a higher one are
    not fitted from this participant's rows; None where they count.
    """

    __tablename__ = "participants"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.LONG_TABLE
    __table_args__ = (
        UniqueConstraint("study_id", "user_id"),
        CheckConstraint(f"phase IN {PHASES}", name="phase"),
    )

    id: Mapped[Id] = mapped_column(info=means("opaque number of the participant", range=">= 1"))
    study_id: Mapped[StudyId]
    user_id: Mapped[str] = mapped_column(info=means("the app's own name for the person", withheld=True))
    phase: Mapped[str] = mapped_column(
        server_default=REGISTERED, info=means("how far the participant is in the trial")
    )
    decision_index: Mapped[int] = mapped_column(
        server_default="0", info=means("how many decision points are over", range=">= 0")
    )
    timezone: Mapped[str]
    rl_start_date: Mapped[date] = mapped_column(info=means("first day of the trial, local"))
    rl_end_date: Mapped[date] = mapped_column(info=means("last day of the trial, local"))
    consent_start_date: Mapped[date] = mapped_column(info=means("first day of the consent, local"))
    consent_end_date: Mapped[date] = mapped_column(info=means("last day of the consent, local"))
    morning_notification_time_start: Mapped[list[int]] = mapped_column(
        ARRAY(SMALLINT),
        info=means("seven morning notification times, Monday first", "HHMM, local", "0 to 2359"),
    )
    evening_notification_time_start: Mapped[list[int]] = mapped_column(
        ARRAY(SMALLINT),
        info=means("seven evening notification times, Monday first", "HHMM, local", "0 to 2359"),
    )
    registration: Mapped[Document] = mapped_column(
        info=means("the body that enrolled the participant", withheld=True)
    )
    corrections: Mapped[int] = mapped_column(
        server_default="0",
        info=means(
            "how many outcomes the study's back end told or corrected after the decision", range=">= 0"
        ),
    )
    removed_row_seq: Mapped[int | None] = mapped_column(
        BigInteger,
        info=means(
            "policies of this row_seq or a higher one are not fitted from their rows; null: they count",
            range=">= 1",
        ),
    )
    created_at: Mapped[CreatedAt]


class ParticipantZone(Base):
    """An IANA zone in which a participant lives from decision point `decision_index` on (0: enrolment).

    Append-only. The last one is the participant's `timezone`.
    """

    __tablename__ = "participant_zones"
    __rights__ = "INSERT"
    __export__ = Export.ROWS
    __table_args__ = (UniqueConstraint("participant_id", "decision_index"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    participant_id: Mapped[ParticipantId]
    timezone: Mapped[str]
    since: Mapped[Instant] = mapped_column(info=means("when the zone was told", "UTC"))
    decision_index: Mapped[int] = mapped_column(
        info=means("point from which the zone holds; 0 is enrolment", range=">= 0")
    )


def enrol(session: Session, study_id: int, registration: dict[str, Any], **columns: Any) -> int | None:
    """Add the participant and return the id; None where the study already has this user_id."""
    added = session.execute(
        insert(Participant)
        .values(study_id=study_id, registration=registration, **columns)
        .on_conflict_do_nothing(index_elements=["study_id", "user_id"])
        .returning(Participant.id, Participant.timezone, Participant.created_at)
    ).one_or_none()
    if added is None:
        return None
    enter_zone(session, study_id, added.id, added.timezone, added.created_at, decision_index=0)
    return int(added.id)


def enter_zone(
    session: Session, study_id: int, participant_id: int, timezone: str, since: datetime, decision_index: int
) -> None:
    """Note that the participant lives in another zone from a decision point on."""
    session.add(
        ParticipantZone(
            study_id=study_id,
            participant_id=participant_id,
            timezone=timezone,
            since=since,
            decision_index=decision_index,
        )
    )
    session.flush()


def corrected(session: Session, participant_id: int) -> None:
    """Note that an earlier outcome came or was corrected: all of a participant's rows must be read again."""
    session.execute(
        update(Participant)
        .where(Participant.id == participant_id)
        .values(corrections=Participant.corrections + 1)
        .execution_options(synchronize_session=False)
    )


def zones(session: Session, participant_id: int) -> list[ParticipantZone]:
    """Return the zones of a participant, oldest first."""
    return list(
        session.scalars(
            select(ParticipantZone)
            .where(ParticipantZone.participant_id == participant_id)
            .order_by(ParticipantZone.decision_index)
        )
    )


def by_user(session: Session, study_id: int, user_id: str) -> Participant | None:
    """Return the participant whom the app calls `user_id`, or None."""
    return session.scalars(
        select(Participant).where(Participant.study_id == study_id, Participant.user_id == user_id)
    ).one_or_none()


def locked(session: Session, study_id: int, user_id: str) -> Participant | None:
    """Return the participant whom the app calls `user_id`, locked until the transaction ends, or None.

    One call at a time moves a participant on.
    """
    return session.scalars(
        select(Participant)
        .where(Participant.study_id == study_id, Participant.user_id == user_id)
        .with_for_update(key_share=True)
    ).one_or_none()


def of_study(session: Session, study_id: int, participant_id: int) -> Participant | None:
    """Return the participant with this id where they are the study's, or None."""
    return session.scalars(
        select(Participant).where(Participant.study_id == study_id, Participant.id == participant_id)
    ).one_or_none()


def locked_of_study(session: Session, study_id: int, participant_id: int) -> Participant | None:
    """Return the study's participant with this id, locked until the transaction ends, or None."""
    return session.scalars(
        select(Participant)
        .where(Participant.study_id == study_id, Participant.id == participant_id)
        .with_for_update(key_share=True)
    ).one_or_none()


def listed(session: Session, study_id: int, user_id: str | None, after: int, limit: int) -> list[Participant]:
    """Participants of the study by id, from the one after `after`; `user_id` leaves only theirs."""
    query = select(Participant).where(Participant.study_id == study_id, Participant.id > after)
    if user_id is not None:
        query = query.where(Participant.user_id == user_id)
    return list(session.scalars(query.order_by(Participant.id).limit(limit)))


def locked_by_id(session: Session, participant_id: int) -> Participant:
    """The participant with this id, locked until the transaction ends."""
    return session.scalars(
        select(Participant).where(Participant.id == participant_id).with_for_update(key_share=True)
    ).one()


def count(session: Session, study_id: int) -> int:
    """Return how many participants the study has."""
    return session.scalar(select(func.count()).where(Participant.study_id == study_id)) or 0
