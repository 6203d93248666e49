"""Audit: who did what to a study, when, why, and what it was before and after.

Append-only, each row chained to the one before by its hash (audit_chain.py).
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

import audit_chain
from models.core import studies
from models.core.base import Base, CreatedAt, Id, StudyId
from models.core.declarations import Export, means

OPERATOR = "operator"
SERVICE = "service"
ROLES = ("client", "researcher", "admin", OPERATOR, SERVICE)


class Act(StrEnum):
    """A kind of act that the audit notes. The members are in the areas' subclasses, in their `acts.py`."""


class Actor(NamedTuple):
    """The one in whose name something is done to a study: an account, the command line, the service itself.

    client_id: the account, None where there is none. role: the account's own where it is None; `operator` for
    the command line, also where that acts in an account's name; `service` for the service.
    """

    study_id: int
    client_id: int | None = None
    role: str | None = None


class AuditEntry(Base):
    """One act on a participant, or on the study as a whole where that is None.

    client_id: the account that acted, or in whose name; None where there was none. role: the account's at the
    time, `operator` for the command line, `service` for the service itself. before, after: what the act
    changed. prev_hash: `hash` of the row `seq - 1`, of the first row the SHA-256 of the study's key.
    """

    __tablename__ = "audit"
    __rights__ = "INSERT"
    __export__ = Export.LONG_TABLE
    __table_args__ = (
        UniqueConstraint("study_id", "seq"),
        CheckConstraint(f"role IN {ROLES}", name="role"),
        Index("ix_audit_study_id_id", "study_id", "id"),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    seq: Mapped[int] = mapped_column(
        BigInteger, info=means("number of the row in the study's chain", range=">= 1")
    )
    client_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("clients.id"),
        info=means("number of the account that acted, or in whose name; null: none"),
    )
    role: Mapped[str] = mapped_column(
        info=means("of the account at that time; operator: command line; service: by itself")
    )
    participant_id: Mapped[int | None] = mapped_column(
        BigInteger,
        ForeignKey("participants.id"),
        info=means("the participant acted on; null: the study as a whole"),
    )
    act: Mapped[str] = mapped_column(info=means("what was done"))
    reason: Mapped[str]
    before: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), info=means("what the act changed, as it was before")
    )
    after: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), info=means("as it was afterwards, and what else belongs to the act")
    )
    created_at: Mapped[CreatedAt]
    prev_hash: Mapped[str] = mapped_column(
        info=means("hash of row seq - 1; of row 1 the SHA-256 of the study's key", "hexadecimal")
    )
    hash: Mapped[str] = mapped_column(
        info=means("SHA-256 of the row's canonical JSON (docs/conduct.md)", "hexadecimal")
    )


class Head(NamedTuple):
    """The last row of a chain; number 0 and the study key's SHA-256 where there is none."""

    seq: int
    hash: str


LINK = """
SELECT now() AS created_at, coalesce(last.seq, 0) AS seq, coalesce(last.hash, s.study_key_sha256) AS hash,
       (SELECT c.role FROM clients c WHERE c.id = :client_id) AS role
FROM studies s
LEFT JOIN LATERAL (SELECT seq, hash FROM audit a WHERE a.study_id = s.id
                   ORDER BY seq DESC LIMIT 1) last ON true
WHERE s.id = :study_id
"""


def note(
    session: Session,
    actor: Actor,
    act: Act,
    reason: str,
    *,
    participant_id: int | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Append who did what, and why, to the chain of the actor's study, under the study's lock.

    before, after: what the act changed. An actor without an account must name a role.
    """
    session.flush()
    studies.take_turn(session, actor.study_id)  # one at a time, each with the last row in sight: no forks
    link = session.execute(text(LINK), {"study_id": actor.study_id, "client_id": actor.client_id}).one()
    columns: dict[str, Any] = {
        "seq": link.seq + 1,
        "created_at": link.created_at,
        "client_id": actor.client_id,
        "role": actor.role or link.role,
        "participant_id": participant_id,
        "act": str(act),
        "reason": reason,
        "before": None if before is None else dict(before),
        "after": None if after is None else dict(after),
        "prev_hash": link.hash,
    }
    entry = AuditEntry(study_id=actor.study_id, hash=audit_chain.digest(columns), **columns)
    session.add(entry)
    session.flush()
    return entry


def note_everywhere(session: Session, act: Act, after: Mapping[str, Any]) -> None:
    """Append what was done to the deployment at the command line to the chain of each of its studies."""
    for study_id in studies.ids(session):
        note(session, Actor(study_id, role=OPERATOR), act, "at the command line", after=after)


def last(session: Session, study_id: int, act: str) -> AuditEntry | None:
    """The last row of this act in the study's chain, or None."""
    query = (
        select(AuditEntry)
        .where(AuditEntry.study_id == study_id, AuditEntry.act == act)
        .order_by(AuditEntry.seq.desc())
    )
    return session.scalars(query.limit(1)).one_or_none()


def head(session: Session, study_id: int) -> Head:
    """The last row of the study's chain."""
    link = session.execute(text(LINK), {"study_id": study_id, "client_id": None}).one()
    return Head(link.seq, link.hash)


def faults(session: Session, study_id: int, anchor: audit_chain.Anchor | None = None) -> list[str]:
    """Return the faults of the study's chain, row by row; none where it is whole."""
    columns = [AuditEntry.__table__.c[name] for name in (*audit_chain.FIELDS, "hash")]
    query = select(*columns).where(AuditEntry.study_id == study_id).order_by(AuditEntry.seq)
    rows = [dict(row) for row in session.execute(query).mappings()]
    return audit_chain.check(rows, studies.by_id(session, study_id).study_key_sha256, anchor)


def listed(session: Session, study_id: int, act: str | None, after: int, limit: int) -> list[AuditEntry]:
    """Rows of the study's chain in their order, from the one after `after`; `act` leaves only such."""
    query = select(AuditEntry).where(AuditEntry.study_id == study_id, AuditEntry.seq > after)
    if act is not None:
        query = query.where(AuditEntry.act == act)
    return list(session.scalars(query.order_by(AuditEntry.seq).limit(limit)))


def published(head: Head, study_id: int, now: datetime) -> dict[str, Any]:
    """Return the message that publishes a head, in the shape of a notification."""
    return {
        "incident_id": None,
        "study_id": study_id,
        "kind": "audit_head",
        "change": "published",
        "level": "green",
        "detail": head._asdict(),
        "at": now.isoformat(),
    }
