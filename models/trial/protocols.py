"""Protocol versions: the documents that a study runs by, one in force at a time, later ones waiting."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Document, Id, Instant, StudyId
from models.core.declarations import Export, means
from models.core.studies import Study
from models.trial.decisions import Decision


class ProtocolVersion(Base):
    """A protocol document as it stood, in force from `effective_at` until the next version is.

    history: how many earlier points its state looks back on. looks_back_days: how many days of sent messages
    its safety envelope looks back on.
    """

    __tablename__ = "protocols"
    __rights__ = "INSERT"
    __export__ = Export.ROWS
    __table_args__ = (UniqueConstraint("study_id", "version"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    version: Mapped[int] = mapped_column(info=means("number of the version in its study", range=">= 1"))
    document: Mapped[Document] = mapped_column(info=means("the complete protocol document"))
    hash: Mapped[str] = mapped_column(info=means("SHA-256 of its canonical form", "hexadecimal"))
    history: Mapped[int] = mapped_column(
        info=means("how many earlier points a state looks back on", "decision points", ">= 0")
    )
    looks_back_days: Mapped[int] = mapped_column(
        server_default="0", info=means("how many days of messages its safety envelope looks back on", "days")
    )
    author: Mapped[str] = mapped_column(info=means("who wrote the version"))
    reason: Mapped[str]
    effective_at: Mapped[Instant] = mapped_column(
        server_default=text("now()"), info=means("when it came, or is to come, in force", "UTC")
    )
    created_at: Mapped[CreatedAt]


class Written(NamedTuple):
    """A protocol document that is to be stored; `history` and `looks_back_days` are those of its row."""

    document: Mapping[str, Any]
    hash: str
    history: int
    looks_back_days: int


# Participants beyond a shorter study's end have ended, or will with the window that is open.
LAST_WINDOWS = """
UPDATE participants p SET phase = 'COMPLETED_AWAITING_REVIEW'
WHERE p.study_id = :study_id AND p.phase = 'STARTED' AND p.decision_index + 1 >= :length
  AND EXISTS (SELECT FROM decisions d
              WHERE d.participant_id = p.id AND d.decision_index = p.decision_index + 1)
"""
BEYOND_THE_END = """
UPDATE participants p SET phase = 'ENDED'
WHERE p.study_id = :study_id AND p.phase = 'STARTED' AND p.decision_index >= :length
"""


def add(
    session: Session,
    study_id: int,
    version: int,
    written: Written,
    author: str,
    reason: str,
    effective_at: datetime | None = None,
) -> ProtocolVersion:
    """Store a version of the study's protocol, to come in force at `effective_at` (None: now)."""
    protocol = ProtocolVersion(
        study_id=study_id,
        version=version,
        document=dict(written.document),
        hash=written.hash,
        history=written.history,
        looks_back_days=written.looks_back_days,
        author=author,
        reason=reason,
    )
    if effective_at is not None:
        protocol.effective_at = effective_at
    session.add(protocol)
    session.flush()
    return protocol


def in_force(session: Session, study: Study) -> ProtocolVersion:
    """Return the version of the study's protocol that is in force."""
    return session.scalars(
        select(ProtocolVersion).where(
            ProtocolVersion.study_id == study.id, ProtocolVersion.version == study.protocol_version
        )
    ).one()


def by_id(session: Session, protocol_id: int) -> ProtocolVersion:
    """Return a version by its id: immutable, so it may be cached."""
    return session.get_one(ProtocolVersion, protocol_id)


def latest(session: Session, study_id: int) -> ProtocolVersion:
    """The version with the highest number, in force or waiting."""
    return session.scalars(
        select(ProtocolVersion)
        .where(ProtocolVersion.study_id == study_id)
        .order_by(ProtocolVersion.version.desc())
        .limit(1)
    ).one()


def listed(session: Session, study_id: int) -> list[ProtocolVersion]:
    """All versions by number."""
    return list(
        session.scalars(
            select(ProtocolVersion)
            .where(ProtocolVersion.study_id == study_id)
            .order_by(ProtocolVersion.version)
        )
    )


def waiting(session: Session, now: datetime) -> list[int]:
    """Ids of the studies in which a later version is due."""
    return list(
        session.scalars(
            select(Study.id)
            .join(ProtocolVersion, ProtocolVersion.study_id == Study.id)
            .where(ProtocolVersion.version > Study.protocol_version, ProtocolVersion.effective_at <= now)
            .distinct()
            .order_by(Study.id)
        )
    )


def due(session: Session, study: Study, now: datetime) -> ProtocolVersion | None:
    """The highest version above the study's own whose time has come, or None."""
    return session.scalars(
        select(ProtocolVersion)
        .where(
            ProtocolVersion.study_id == study.id,
            ProtocolVersion.version > study.protocol_version,
            ProtocolVersion.effective_at <= now,
        )
        .order_by(ProtocolVersion.version.desc())
        .limit(1)
    ).one_or_none()


def reached(session: Session, study_id: int) -> int:
    """The highest decision index of any participant; 0 before the first decision."""
    highest = session.scalar(select(func.max(Decision.decision_index)).where(Decision.study_id == study_id))
    return highest or 0


def end_beyond(session: Session, study_id: int, study_length: int) -> None:
    """End the participants who are beyond the end of a shorter study, now or with the window that is open."""
    parameters = {"study_id": study_id, "length": study_length}
    session.execute(text(LAST_WINDOWS), parameters)
    session.execute(text(BEYOND_THE_END), parameters)
