"""Decisions: the action drawn for a participant at a decision point, with everything needed to check it.

The statement that stores one goes through the driver as text, without the ORM: it is on the hot path.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, CheckConstraint, Index, SmallInteger, UniqueConstraint, func, select
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Document, Id, Instant, ParticipantId
from models.core.declarations import Export, means
from models.core.session import Prepared


class Decision(Base):
    """One randomised decision. `id` is the rid. Append-only: later answers are rows of `answers`.

    answers, reward: of the first committed call; reward is the outcome of the previous point's action, None
    where the protocol records outcomes with the point itself: they come later, as rows of `answers`.
    available, unavailable_rule: where a rule forbade a message, nothing was drawn: action and act_prob are 0,
    policy_id is None.
    study_id and protocol_id come from the row that was just read, without a foreign key: every decision of a
    study would lock the same two rows.
    """

    __tablename__ = "decisions"
    __rights__ = "INSERT"
    __export__ = Export.LONG_TABLE
    __table_args__ = (
        UniqueConstraint("participant_id", "decision_index"),
        CheckConstraint("available = (unavailable_rule IS NULL)", name="unavailable_by_a_rule"),
        Index("ix_decisions_study_id_id", "study_id", "id"),
    )

    id: Mapped[Id] = mapped_column(info=means("rid: the decision's number", range=">= 1"))
    study_id: Mapped[int] = mapped_column(BigInteger)
    participant_id: Mapped[ParticipantId]
    decision_index: Mapped[int]
    protocol_id: Mapped[int] = mapped_column(BigInteger)
    protocol_hash: Mapped[str]
    code_version: Mapped[str]
    policy_id: Mapped[int | None] = mapped_column(
        info=means("policy whose probability this is; null at F4 and none", range=">= 0")
    )
    feature_version: Mapped[str]
    state: Mapped[list[float] | None] = mapped_column(
        ARRAY(DOUBLE_PRECISION), info=means("state variables in the order of the feature version; null at F4")
    )
    advantage_mean: Mapped[float | None] = mapped_column(
        info=means("posterior mean of the advantage of action 1 in the state", "reward units")
    )
    advantage_variance: Mapped[float | None] = mapped_column(
        info=means("its variance", "reward units squared", ">= 0")
    )
    act_prob: Mapped[float] = mapped_column(
        info=means("probability of action 1, after all rules", range="[0, 1]")
    )
    seed: Mapped[int] = mapped_column(
        BigInteger, info=means("action is 1 where seed / 2^53 < act_prob", range="[0, 2^53)")
    )
    action: Mapped[int] = mapped_column(SmallInteger, info=means("1 sent, 0 not", range="0, 1"))
    fallback_level: Mapped[str] = mapped_column(
        info=means(
            "the rung of the ladder that decided; none where not available", range="F0, F1, F2, F3, F4, none"
        )
    )
    available: Mapped[bool] = mapped_column(
        server_default="true", info=means("whether randomisation was allowed")
    )
    unavailable_rule: Mapped[str | None] = mapped_column(
        info=means(
            "the rule that forbade it; null where available",
            range="app, quiet_hours, cool_down, daily_cap, weekly_cap",
        )
    )
    answers: Mapped[Document] = mapped_column(
        info=means("the answers that the first call of this point told")
    )
    reward: Mapped[float | None] = mapped_column(
        info=means(
            "what those answers report: the outcome of an earlier action; null where they report none",
            "reward units",
        )
    )
    evening: Mapped[bool] = mapped_column(info=means("time of day that was decided with"))
    decision_time: Mapped[Instant] = mapped_column(
        info=means("when the point was, as the app told, else act_gen_timestamp", "UTC")
    )
    utc_offset_minutes: Mapped[int] = mapped_column(
        SmallInteger, info=means("of the participant's wall clock then", "minutes east of UTC")
    )
    act_gen_timestamp: Mapped[Instant] = mapped_column(
        info=means("when the action was drawn, by the server's clock", "UTC")
    )


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as it is to be stored: the columns of `Decision`, by name.

    Numbers must be finite (the record goes through JSON, where others would be null) and instants in UTC (of
    another offset JSON keeps whole minutes alone).
    """

    id: int
    study_id: int
    participant_id: int
    decision_index: int
    protocol_id: int
    protocol_hash: str
    code_version: str
    policy_id: int | None
    feature_version: str
    state: list[float] | None
    advantage_mean: float | None
    advantage_variance: float | None
    act_prob: float
    seed: int
    action: int
    fallback_level: str
    available: bool
    unavailable_rule: str | None
    answers: dict[str, Any]
    reward: float | None
    evening: bool
    decision_time: datetime
    utc_offset_minutes: int
    act_gen_timestamp: datetime


COLUMNS = [column.name for column in Decision.__table__.columns]
# No transaction waits to read a point. Of several that decide the same one, the unique key lets the first
# pass. And each rewrites the participant's row: with a snapshot from before another point was decided, a
# window ended or the participant withdrawn, that fails. A failed one runs again, and sees what was written.
INSERT = f"""
WITH moved AS (
    UPDATE participants SET phase = $1, timezone = $2 WHERE id = $3
)
INSERT INTO decisions ({", ".join(COLUMNS)}) OVERRIDING SYSTEM VALUE
SELECT {", ".join(COLUMNS)} FROM json_populate_record(NULL::decisions, $4)
"""
ADD_DECISION = Prepared("add_decision", INSERT)


def add(session: Session, record: DecisionRecord, phase: str, timezone: str) -> None:
    """Store a decision, at the latest with COMMIT; its participant goes on in `phase` and `timezone`."""
    ADD_DECISION.later(session, (phase, timezone, record.participant_id, orjson.dumps(record).decode()))


def at(session: Session, participant_id: int, decision_index: int) -> Decision | None:
    """Return the decision of a participant at an index, or None."""
    return session.scalars(
        select(Decision).where(
            Decision.participant_id == participant_id, Decision.decision_index == decision_index
        )
    ).one_or_none()


def existing(session: Session, participant_id: int, decision_index: int) -> Decision:
    """Return the decision of a participant at an index. Raises NoResultFound."""
    return session.scalars(
        select(Decision).where(
            Decision.participant_id == participant_id, Decision.decision_index == decision_index
        )
    ).one()


def by_rids(session: Session, participant_id: int, rids: list[int]) -> dict[int, Decision]:
    """Return the decisions among `rids` that are this participant's, by rid."""
    decisions = session.scalars(
        select(Decision).where(Decision.participant_id == participant_id, Decision.id.in_(rids))
    )
    return {decision.id: decision for decision in decisions}


def listed(
    session: Session, study_id: int, participant_id: int | None, after: int, limit: int
) -> list[Decision]:
    """Decisions of the study by rid, from the one after `after`; `participant_id` leaves only theirs."""
    query = select(Decision).where(Decision.study_id == study_id, Decision.id > after)
    if participant_id is not None:
        query = query.where(Decision.participant_id == participant_id)
    return list(session.scalars(query.order_by(Decision.id).limit(limit)))


def fallback_counts(session: Session, study_id: int) -> dict[str, int]:
    """Return the number of decisions at each fallback level."""
    rows = session.execute(
        select(Decision.fallback_level, func.count())
        .where(Decision.study_id == study_id)
        .group_by(Decision.fallback_level)
    )
    return dict(rows.all())
