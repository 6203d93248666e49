"""The rows of a study's tables, read from the database itself, as dictionaries that can be compared."""

from contextlib import closing
from typing import Any, TypeAlias

import psycopg2
from psycopg2.extras import RealDictCursor

from tests.storm.trial import POISON

Row: TypeAlias = dict[str, Any]
POINT = "p.user_id || ' ' || lpad(d.decision_index::text, 4, '0')"  # the key of a decision point

DECISIONS = f"""
SELECT {POINT} AS key, d.* FROM decisions d JOIN participants p ON p.id = d.participant_id
JOIN studies s ON s.id = d.study_id WHERE s.name = %s ORDER BY key
"""
WINDOWS = f"""
SELECT {POINT} AS key, d.*, j.id AS job_id, j.state AS job_state, j.code AS job_code, j.reason AS job_reason
FROM windows d JOIN participants p ON p.id = d.participant_id JOIN studies s ON s.id = d.study_id
LEFT JOIN jobs j ON j.window_id = d.id WHERE s.name = %s ORDER BY key
"""
ANSWERS = f"""
SELECT {POINT} AS key, a.source, a.item, a.reward, a.version FROM answers a
JOIN decisions d ON d.id = a.decision_id JOIN participants p ON p.id = d.participant_id
JOIN studies s ON s.id = a.study_id WHERE s.name = %s ORDER BY key, a.version
"""
ROWS = f"""
SELECT {POINT} AS key, d.outcome FROM learning_rows d JOIN participants p ON p.id = d.participant_id
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
CLAIMS = """
SELECT j.kind, count(*) AS jobs, sum(j.attempts) AS claims FROM jobs j
JOIN studies s ON s.id = j.study_id WHERE s.name = %s GROUP BY j.kind ORDER BY j.kind
"""
RUNNING = "SELECT FROM jobs j JOIN studies s ON s.id = j.study_id WHERE j.state = 'running' AND s.name <> %s"
DISCREPANCIES = "SELECT d.* FROM discrepancies d JOIN studies s ON s.id = d.study_id WHERE s.name = %s"
STUDY = """
SELECT s.*, v.document FROM studies s
JOIN protocols v ON v.study_id = s.id AND v.version = s.protocol_version WHERE s.name = %s
"""
OF_A_RUN = {  # columns of ids and instants, which no two runs share
    *("id", "rid", "act_gen_timestamp", "timestamp_finished_ema", "created_at", "report"),
    *("message_notification_sent_time", "message_notification_click_time"),
    *("ended_at", "ingested_at", "query_start", "query_end", "job_id", "key"),
}


def read(database_url: str, query: str, study: str) -> list[Row]:
    """Return the rows of one of the queries above for a study."""
    url = database_url.replace("postgresql+psycopg2", "postgresql")
    with (
        closing(psycopg2.connect(url)) as connection,
        connection.cursor(cursor_factory=RealDictCursor) as cursor,
    ):
        cursor.execute(query, (study,))
        return [dict(row) for row in cursor.fetchall()]


def has_a_job(database_url: str) -> bool:
    """Return whether a worker has a job other than the poisoned one; False where the database is away."""
    try:
        return bool(read(database_url, RUNNING, POISON))
    except psycopg2.Error:
        return False


def comparable(database_url: str, study: str) -> dict[str, dict[str, Any]]:
    """Return a study's data and policies by table and key, without the columns in which all runs differ."""
    queries = {
        "decisions": DECISIONS,
        "windows": WINDOWS,
        "answers": ANSWERS,
        "rows": ROWS,
        "policies": POLICIES,
        "blocks": BLOCKS,
    }
    tables: dict[str, dict[str, Any]] = {}
    for name, query in queries.items():
        tables[name] = {}
        for row in read(database_url, query, study):
            tables[name].setdefault(row["key"], []).append(_comparable(row))
    return tables


def _comparable(row: Row) -> Row:
    return {
        name: _comparable(value) if isinstance(value, dict) else value
        for name, value in row.items()
        if name not in OF_A_RUN
    }
