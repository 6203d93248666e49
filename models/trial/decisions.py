"""Decisions: what was drawn for a participant at a decision point, with everything needed to check it.

The two statements at the top are the hot path. They go through the driver as text, without the ORM.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import BigInteger, CheckConstraint, Index, SmallInteger, UniqueConstraint, func, select
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Document, Id, Instant, ParticipantId
from models.core.declarations import Export, means
from models.core.session import Prepared


class Decision(Base):
    """One randomised decision. `id` is the rid. Append-only: later answers are rows of `answers`.

    state: what the protocol's state function gave, in the order its feature version names; None at F4.
    policy_id: number of the policy whose probability this is; None at F4.
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


SENT = """
       CASE WHEN v.looks_back_days > 0 THEN
           (SELECT json_agg(json_build_array(e.act_gen_timestamp, e.decision_time, e.utc_offset_minutes))
            FROM decisions e
            WHERE e.participant_id = p.id AND e.decision_index < i.index AND e.action = 1
              AND e.act_gen_timestamp > now() - interval '1 day' * (v.looks_back_days + 1))
       END
"""
# Joins where a SELECT within the list of columns would read better: the server walks through a statement that
# has one of these, each time it runs.
POINT = """
SELECT json_build_array(c.role, c.disabled, r.jti IS NOT NULL, s.paused, s.policy_id, v.id, v.looks_back_days,
       p.id, p.phase, p.decision_index, p.timezone, p.rl_start_date, p.rl_end_date,
       p.morning_notification_time_start, p.evening_notification_time_start, i.index,
       CASE WHEN d.id IS NULL THEN nextval('decisions_id_seq') END, d.act_gen_timestamp, h.earlier,
       {sent},
       encode(array_send(b.mean), 'hex'), encode(array_send(b.covariance), 'hex'))::text
FROM clients c
JOIN studies s ON s.id = c.study_id
JOIN protocols v ON v.study_id = s.id AND v.version = s.protocol_version
JOIN participants p ON p.study_id = s.id AND p.user_id = $4
CROSS JOIN LATERAL (SELECT coalesce($5, p.decision_index + 1) AS index) i
LEFT JOIN decisions d ON d.participant_id = p.id AND d.decision_index = i.index
LEFT JOIN revoked_tokens r ON r.jti = $3
LEFT JOIN policy_blocks b
       ON b.study_id = s.id AND b.policy_id = s.policy_id AND b.participant_id = p.id
CROSS JOIN LATERAL (
    SELECT json_agg(json_build_array(e.decision_index, e.evening, e.action, e.answers, e.reward,
               e.feature_version, t.told) ORDER BY e.decision_index) AS earlier
    FROM decisions e
    LEFT JOIN LATERAL (
        SELECT json_build_array(a.item, coalesce(a.reward, e.reward)) AS told FROM answers a
        WHERE a.decision_id = e.id AND a.source = 'ema' AND coalesce(a.reward, e.reward) IS NOT NULL
        ORDER BY a.version DESC LIMIT 1) t ON true
    WHERE e.participant_id = p.id AND e.decision_index BETWEEN i.index - v.history AND i.index - 1) h
WHERE c.id = $2 AND c.study_id = $1
"""


class Point(NamedTuple):
    """All that one decision needs, read by one statement, in its order, as one JSON array: the driver takes a
    microsecond for each column.

    Dates and instants are ISO texts. `decision_index` is the point asked for (the next one where none was
    named); `act_gen_timestamp` is of the stored decision of that index, None where there is none yet, and
    `new_rid` (else None) is for the one to be stored: who has it can answer before the row is written.
    `earlier` holds
    [decision_index, evening, action, answers, reward, feature_version, told] of the points that the state
    looks back on; `told` is [item, reward] of the latest report of the back end that counts, or None.
    `sent` holds [act_gen_timestamp, decision_time, utc_offset_minutes] of the messages of `looks_back_days`
    days, None where they were not asked for. The arrays of the block come as `arrays.sent` reads them.
    """

    role: str
    disabled: bool
    revoked: bool
    paused: bool
    current_policy_id: int
    protocol_id: int
    looks_back_days: int
    participant_id: int
    phase: str
    closed_index: int
    timezone: str
    rl_start_date: str
    rl_end_date: str
    mornings: list[int]
    evenings: list[int]
    decision_index: int
    new_rid: int | None
    act_gen_timestamp: str | None
    earlier: list[list[Any]] | None
    sent: list[list[Any]] | None
    block_mean: str | None
    block_covariance: str | None


COLUMNS = [column.name for column in Decision.__table__.columns]
# Nobody waits to read a point. Of several who decide the same one, the unique key lets the first pass. And
# each rewrites the participant's row: with a snapshot from before another point was decided, a window ended
# or the participant withdrawn, that fails. Who failed runs again, and sees what the first one wrote.
INSERT = f"""
WITH moved AS (
    UPDATE participants SET phase = $1, timezone = $2 WHERE id = $3
)
INSERT INTO decisions ({", ".join(COLUMNS)}) OVERRIDING SYSTEM VALUE
SELECT {", ".join(COLUMNS)} FROM json_populate_record(NULL::decisions, $4)
"""
READ_POINT = Prepared("read_point", POINT.format(sent="NULL"))
READ_POINT_WITH_SENT = Prepared("read_point_with_sent", POINT.format(sent=SENT))
ADD_DECISION = Prepared("add_decision", INSERT)


def point(
    session: Session,
    study_id: int,
    client_id: int,
    jti: str,
    user_id: str,
    decision_index: int | None,
    with_sent: bool,
) -> Point | None:
    """Read a decision point; None where the account or the participant is not of this study.

    A statement has its price even where it finds nothing, so the messages sent are read only if asked for.
    """
    statement = READ_POINT_WITH_SENT if with_sent else READ_POINT
    row = statement.row(session, (study_id, client_id, jti, user_id, decision_index))
    return Point(*orjson.loads(row[0])) if row else None


def add(session: Session, record: DecisionRecord, phase: str, timezone: str) -> None:
    """Store a decision, at the latest with COMMIT; its participant goes on in `phase` and `timezone`."""
    ADD_DECISION.later(session, (phase, timezone, record.participant_id, orjson.dumps(record).decode()))


def at(session: Session, participant_id: int, decision_index: int) -> Decision | None:
    """The decision of a participant at an index, or None."""
    return session.scalars(
        select(Decision).where(
            Decision.participant_id == participant_id, Decision.decision_index == decision_index
        )
    ).one_or_none()


def known(session: Session, participant_id: int, decision_index: int) -> Decision:
    """The same where it must exist. Raises NoResultFound."""
    return session.scalars(
        select(Decision).where(
            Decision.participant_id == participant_id, Decision.decision_index == decision_index
        )
    ).one()


def by_rids(session: Session, participant_id: int, rids: list[int]) -> dict[int, Decision]:
    """Those of the decisions `rids` that are this participant's, by rid."""
    found = session.scalars(
        select(Decision).where(Decision.participant_id == participant_id, Decision.id.in_(rids))
    )
    return {decision.id: decision for decision in found}


def listed(
    session: Session, study_id: int, participant_id: int | None, after: int, limit: int
) -> list[Decision]:
    """Decisions of the study by rid, from the one after `after`; `participant_id` leaves only theirs."""
    query = select(Decision).where(Decision.study_id == study_id, Decision.id > after)
    if participant_id is not None:
        query = query.where(Decision.participant_id == participant_id)
    return list(session.scalars(query.order_by(Decision.id).limit(limit)))


def fallback_counts(session: Session, study_id: int) -> dict[str, int]:
    """How many decisions were made at each fallback level."""
    rows = session.execute(
        select(Decision.fallback_level, func.count())
        .where(Decision.study_id == study_id)
        .group_by(Decision.fallback_level)
    )
    return dict(rows.all())
