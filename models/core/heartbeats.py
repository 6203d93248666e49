"""Heartbeats: when beat last ticked and when a worker last ran a task."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Instant
from models.core.declarations import Export, means

BEAT = "beat"
WORKERS = "workers"


class Heartbeat(Base):
    """The last sign of life of a part of the deployment."""

    __tablename__ = "heartbeats"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.WITHHELD  # of the deployment, not of a study

    name: Mapped[str] = mapped_column(
        primary_key=True, info=means("part of the deployment", range="beat, workers")
    )
    at: Mapped[Instant] = mapped_column(info=means("when it last gave a sign of life", "UTC"))


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
