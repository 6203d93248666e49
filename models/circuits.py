"""Circuits: whether a study's back end is asked at present, or left in peace after too many failures."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.base import Base

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half_open"


class Circuit(Base):
    """The circuit of a study: closed while its back end is asked, open until `retry_at`, then half open."""

    __tablename__ = "circuits"
    __table_args__ = (CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),)

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("studies.id"), primary_key=True)
    state: Mapped[str] = mapped_column(server_default=CLOSED)
    failures: Mapped[int] = mapped_column(server_default="0")
    opened_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    retry_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def of_study(session: Session, study_id: int) -> Circuit | None:
    """The circuit of a study, or None where it never had one."""
    return session.get(Circuit, study_id)
