"""Decision points: everything that is needed to decide one, read by one statement.

With the statement that stores the decision (models/trial/decisions.py) this one is the hot path. Both go
through the driver as text, without the ORM.
"""

from typing import Any, NamedTuple

import orjson
from sqlalchemy.orm import Session

from models.core.session import Prepared


class Point(NamedTuple):
    """Everything that the decision at one point needs: account, study, participant, block, earlier points.

    Dates and instants are ISO texts. decision_index: the index that the caller named, or the next one.
    act_gen_timestamp: of the stored decision of that index, None where there is none yet. new_rid (else
    None): for the decision to be stored, so that the caller can answer before the row is written.
    earlier: [decision_index, evening, action, answers, reward, feature_version, report] of each point that
    the state looks back on; report is [item, reward] of the back end's latest report that counts, or None.
    sent: [act_gen_timestamp, decision_time, utc_offset_minutes] of each message of `looks_back_days` days,
    None where they were not read. block_mean, block_covariance: as `pg_arrays.sent` reads them.
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


# The SQL of each field of Point, in its order. The server sends them as one JSON array, since the driver
# takes a microsecond for each column.
COLUMNS = {
    "role": "c.role",
    "disabled": "c.disabled",
    "revoked": "r.jti IS NOT NULL",
    "paused": "s.paused",
    "current_policy_id": "s.policy_id",
    "protocol_id": "v.id",
    "looks_back_days": "v.looks_back_days",
    "participant_id": "p.id",
    "phase": "p.phase",
    "closed_index": "p.decision_index",
    "timezone": "p.timezone",
    "rl_start_date": "p.rl_start_date",
    "rl_end_date": "p.rl_end_date",
    "mornings": "p.morning_notification_time_start",
    "evenings": "p.evening_notification_time_start",
    "decision_index": "i.index",
    "new_rid": "CASE WHEN d.id IS NULL THEN nextval('decisions_id_seq') END",
    "act_gen_timestamp": "d.act_gen_timestamp",
    "earlier": "h.earlier",
    "sent": "{sent}",
    "block_mean": "encode(array_send(b.mean), 'hex')",
    "block_covariance": "encode(array_send(b.covariance), 'hex')",
}
assert tuple(COLUMNS) == Point._fields
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
POINT = f"""
SELECT json_build_array({", ".join(COLUMNS.values())})::text
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
               e.feature_version, t.report) ORDER BY e.decision_index) AS earlier
    FROM decisions e
    LEFT JOIN LATERAL (
        SELECT json_build_array(a.item, coalesce(a.reward, e.reward)) AS report FROM answers a
        WHERE a.decision_id = e.id AND a.source = 'ema' AND coalesce(a.reward, e.reward) IS NOT NULL
        ORDER BY a.version DESC LIMIT 1) t ON true
    WHERE e.participant_id = p.id AND e.decision_index BETWEEN i.index - v.history AND i.index - 1) h
WHERE c.id = $2 AND c.study_id = $1
"""
READ_POINT = Prepared("read_point", POINT.format(sent="NULL"))
READ_POINT_WITH_SENT = Prepared("read_point_with_sent", POINT.format(sent=SENT))


def read(
    session: Session,
    study_id: int,
    client_id: int,
    jti: str,
    user_id: str,
    decision_index: int | None,
    with_sent: bool,
) -> Point | None:
    """Return a decision point, or None where the account or the participant is not of this study.

    A statement has its price even where it finds nothing, so the messages sent are read only if asked for.
    """
    statement = READ_POINT_WITH_SENT if with_sent else READ_POINT
    row = statement.row(session, (study_id, client_id, jti, user_id, decision_index))
    return Point(*orjson.loads(row[0])) if row else None
