"""What a study's tables hold, read past the service, as dictionaries that two runs can be compared by."""

from contextlib import closing
from typing import Any, TypeAlias

import psycopg2
from psycopg2.extras import RealDictCursor

from tests.storm.trial import POISON

Row: TypeAlias = dict[str, Any]
WHO = "p.user_id || ' ' || lpad(d.decision_index::text, 4, '0')"

DECISIONS = f"""
SELECT {WHO} AS key, d.* FROM decisions d JOIN participants p ON p.id = d.participant_id
JOIN studies s ON s.id = d.study_id WHERE s.name = %s ORDER BY key
"""
WINDOWS = f"""
SELECT {WHO} AS key, d.*, j.id AS job_id, j.state AS job_state, j.code AS job_code, j.reason AS job_reason
FROM windows d JOIN participants p ON p.id = d.participant_id JOIN studies s ON s.id = d.study_id
LEFT JOIN jobs j ON j.window_id = d.id WHERE s.name = %s ORDER BY key
"""
ANSWERS = f"""
SELECT {WHO} AS key, a.source, a.item, a.reward, a.version FROM answers a
JOIN decisions d ON d.id = a.decision_id JOIN participants p ON p.id = d.participant_id
JOIN studies s ON s.id = a.study_id WHERE s.name = %s ORDER BY key, a.version
"""
ROWS = f"""
SELECT {WHO} AS key, d.outcome FROM learning_rows d JOIN participants p ON p.id = d.participant_id
JOIN studies s ON s.id = d.study_id WHERE s.name = %s ORDER BY key, d.row_seq
"""
POLICIES = """
SELECT lpad(o.policy_id::text, 4, '0') AS key, o.*, s.policy_id = o.policy_id AS serves
FROM policies o JOIN studies s ON s.id = o.study_id WHERE s.name = %s ORDER BY key
"""
BLOCKS = """
SELECT b.policy_id || ' ' || b.participant_id AS key, b.* FROM policy_blocks b
JOIN studies s ON s.id = b.study_id AND s.policy_id = b.policy_id
WHERE s.name = %s ORDER BY b.participant_id
"""
JOBS = "SELECT j.* FROM jobs j JOIN studies s ON s.id = j.study_id WHERE s.name = %s ORDER BY j.id"
RUNNING = "SELECT FROM jobs j JOIN studies s ON s.id = j.study_id WHERE j.state = 'running' AND s.name <> %s"
DISCREPANCIES = "SELECT d.* FROM discrepancies d JOIN studies s ON s.id = d.study_id WHERE s.name = %s"
STUDY = """
SELECT s.*, v.document FROM studies s
JOIN protocols v ON v.study_id = s.id AND v.version = s.protocol_version WHERE s.name = %s
"""
OF_A_RUN = {  # ids and moments that no two runs share
    *("id", "rid", "act_gen_timestamp", "timestamp_finished_ema", "created_at", "report"),
    *("message_notification_sent_time", "message_notification_click_time"),
    *("ended_at", "ingested_at", "query_start", "query_end", "job_id", "key"),
}


def read(database_url: str, query: str, study: str) -> list[Row]:
    """The rows of one of the queries above."""
    url = database_url.replace("postgresql+psycopg2", "postgresql")
    with (
        closing(psycopg2.connect(url)) as connection,
        connection.cursor(cursor_factory=RealDictCursor) as found,
    ):
        found.execute(query, (study,))
        return [dict(row) for row in found.fetchall()]


def has_a_job(database_url: str) -> bool:
    """Whether a worker has a job just now, but for the poisoned one; False where the database is away."""
    try:
        return bool(read(database_url, RUNNING, POISON))
    except psycopg2.Error:
        return False


def comparable(database_url: str, study: str) -> dict[str, dict[str, Any]]:
    """A study's data and policies by table and key, without what differs between any two runs."""
    tables = {
        "decisions": DECISIONS,
        "windows": WINDOWS,
        "answers": ANSWERS,
        "rows": ROWS,
        "policies": POLICIES,
        "blocks": BLOCKS,
    }
    return {name: _keyed(read(database_url, query, study)) for name, query in tables.items()}


def _keyed(rows: list[Row]) -> dict[str, Any]:
    """The rows of each key, in their order."""
    found: dict[str, Any] = {}
    for row in rows:
        found.setdefault(row["key"], []).append(_kept(row))
    return found


def _kept(row: Row) -> Row:
    return {
        name: _kept(value) if isinstance(value, dict) else value
        for name, value in row.items()
        if name not in OF_A_RUN
    }
