"""Idempotency keys: the decision point of each call under a key of the client's own, for good."""

from sqlalchemy import CheckConstraint, PrimaryKeyConstraint, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, ParticipantId, StudyId
from models.core.declarations import Export, means
from models.trial.participants import Participant

ACTIONS = "actions"
END = "end_decision_window"


class IdempotencyKey(Base):
    """The decision point that a key stands for in one kind of call, from its first use on. Append-only."""

    __tablename__ = "idempotency_keys"
    __rights__ = "INSERT"
    __export__ = Export.WITHHELD  # chosen by clients, who may write names into them
    __table_args__ = (
        PrimaryKeyConstraint("participant_id", "call", "key"),
        CheckConstraint("call IN ('actions', 'end_decision_window')", name="call"),
    )

    study_id: Mapped[StudyId]
    participant_id: Mapped[ParticipantId]
    call: Mapped[str] = mapped_column(info=means("kind of call that the key was used in"))
    key: Mapped[str] = mapped_column(info=means("key that the client chose"))
    decision_index: Mapped[int]
    created_at: Mapped[CreatedAt]


def decision_index(session: Session, study_id: int, user_id: str, call: str, key: str) -> int | None:
    """Return the decision index that `key` stands for in this kind of call, or None where it is new."""
    return session.scalar(
        select(IdempotencyKey.decision_index)
        .join(Participant, Participant.id == IdempotencyKey.participant_id)
        .where(Participant.study_id == study_id, Participant.user_id == user_id)
        .where(IdempotencyKey.call == call, IdempotencyKey.key == key)
    )


def keep(
    session: Session, study_id: int, participant_id: int, call: str, key: str, decision_index: int
) -> None:
    """Let a key stand for a decision index, unless it does already. First uses at once run one by one."""
    session.execute(
        insert(IdempotencyKey)
        .values(
            study_id=study_id,
            participant_id=participant_id,
            call=call,
            key=key,
            decision_index=decision_index,
        )
        .on_conflict_do_nothing()
    )
