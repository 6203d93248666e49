"""Audit: what admins did to the conduct of a study, and why. Append-only."""

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base, CreatedAt, Id, StudyId

WITHDRAW = "withdraw"
PAUSE = "pause"
RESUME = "resume"
PROTOCOL_VERSION = "protocol_version"


class Act(Base):
    """One act of an account: on a participant, or on the study as a whole where that is None."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_study_id_id", "study_id", "id"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    client_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("clients.id"))
    participant_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("participants.id"))
    act: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[CreatedAt]


def note(
    session: Session, study_id: int, client_id: int, act: str, reason: str, participant_id: int | None = None
) -> None:
    """Write down who did what, and why."""
    session.add(
        Act(study_id=study_id, client_id=client_id, act=act, reason=reason, participant_id=participant_id)
    )
    session.flush()
