"""Heartbeats: when beat last ticked and when a worker last ran a task."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Instant

BEAT = "beat"
WORKERS = "workers"


class Heartbeat(Base):
    """The last sign of life of a part of the deployment."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Instant]


def touch(session: Session, name: str, now: datetime) -> None:
    """Note a sign of life."""
    new = insert(Heartbeat).values(name=name, at=now)
    session.execute(new.on_conflict_do_update(index_elements=["name"], set_={"at": new.excluded.at}))


def last(session: Session, name: str) -> datetime | None:
    """The last sign of life, or None where there never was one."""
    return session.scalar(select(Heartbeat.at).where(Heartbeat.name == name))


def everyone(session: Session) -> dict[str, datetime]:
    """The last sign of life of every part that gave one."""
    return {beat.name: beat.at for beat in session.scalars(select(Heartbeat))}
