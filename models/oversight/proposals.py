"""Proposals: dangerous acts that one admin asks for and another one lets happen."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Document, Id, Instant, StudyId
from models.core.declarations import Export, means

OPEN, APPROVED, REJECTED = "open", "approved", "rejected"
EXPIRED = "expired"  # what an open one is called after `expires_at`; never stored


class Proposal(Base):
    """An act of the audit that an account proposed, and what became of the proposal."""

    __tablename__ = "proposals"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.ROWS
    __table_args__ = (
        CheckConstraint("state IN ('open', 'approved', 'rejected')", name="state"),
        CheckConstraint("(state = 'open') = (decided_at IS NULL)", name="open_is_undecided"),
        Index("ix_proposals_study_id_id", "study_id", "id"),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    act: Mapped[str] = mapped_column(info=means("the act that was proposed, as the audit calls it"))
    arguments: Mapped[Document] = mapped_column(info=means("on what"))
    reason: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=OPEN, info=means("what has become of it"))
    proposed_by: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("clients.id"), info=means("number of the account that proposed it")
    )
    expires_at: Mapped[Instant] = mapped_column(info=means("until when it can be approved", "UTC"))
    decided_by: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("clients.id"), info=means("number of the account that approved or rejected it")
    )
    decided_at: Mapped[Instant | None] = mapped_column(info=means("when it was approved or rejected", "UTC"))
    created_at: Mapped[CreatedAt]


def add(
    session: Session,
    study_id: int,
    act: str,
    arguments: Mapping[str, Any],
    reason: str,
    proposed_by: int,
    expires_at: datetime,
) -> Proposal:
    """Return a new, open proposal."""
    proposal = Proposal(
        study_id=study_id,
        act=act,
        arguments=dict(arguments),
        reason=reason,
        state=OPEN,
        proposed_by=proposed_by,
        expires_at=expires_at,
    )
    session.add(proposal)
    session.flush()
    return proposal


def pending(
    session: Session,
    study_id: int,
    act: str,
    arguments: Mapping[str, Any],
    reason: str,
    proposed_by: int,
    now: datetime,
) -> Proposal | None:
    """Return the open proposal of the same act, arguments and reason by the same account, or None."""
    query = select(Proposal).where(
        Proposal.study_id == study_id,
        Proposal.act == act,
        Proposal.arguments == dict(arguments),
        Proposal.reason == reason,
        Proposal.proposed_by == proposed_by,
        Proposal.state == OPEN,
        Proposal.expires_at > now,
    )
    return session.scalars(query.order_by(Proposal.id).limit(1)).one_or_none()


def locked(session: Session, study_id: int, proposal_id: int) -> Proposal | None:
    """The study's proposal of this id, locked until the transaction ends, or None."""
    return session.scalars(
        select(Proposal)
        .where(Proposal.study_id == study_id, Proposal.id == proposal_id)
        .with_for_update(key_share=True)
    ).one_or_none()


def of_study(session: Session, study_id: int, proposal_id: int) -> Proposal | None:
    """The study's proposal of this id, or None."""
    return session.scalars(
        select(Proposal).where(Proposal.study_id == study_id, Proposal.id == proposal_id)
    ).one_or_none()


def state(proposal: Proposal, now: datetime) -> str:
    """Return the state of a proposal at `now`: an open one expires."""
    return EXPIRED if proposal.state == OPEN and proposal.expires_at <= now else proposal.state


def decide(session: Session, proposal: Proposal, new: str, client_id: int, now: datetime) -> None:
    """Approve or reject an open proposal."""
    proposal.state, proposal.decided_by, proposal.decided_at = new, client_id, now
    session.flush()


def listed(session: Session, study_id: int, after: int, limit: int) -> list[Proposal]:
    """Proposals of the study by id, from the one after `after`."""
    query = select(Proposal).where(Proposal.study_id == study_id, Proposal.id > after)
    return list(session.scalars(query.order_by(Proposal.id).limit(limit)))
