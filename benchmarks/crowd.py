"""Many participants with past decisions, inserted into the database in bulk for the benchmarks."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection

PEOPLE = """
INSERT INTO participants (study_id, user_id, phase, decision_index, timezone, rl_start_date, rl_end_date,
    consent_start_date, consent_end_date, morning_notification_time_start, evening_notification_time_start,
    registration)
SELECT :study_id, 'p' || n, 'STARTED', :past, 'UTC', '2020-01-01', '2099-12-31', '2020-01-01', '2099-12-31',
    array_fill(800, ARRAY[7]), array_fill(1900, ARRAY[7]), '{}'
FROM generate_series(1, :people) n
"""
PAST = """
INSERT INTO decisions (study_id, participant_id, decision_index, protocol_id, protocol_hash, code_version,
    policy_id, feature_version, state, advantage_mean, advantage_variance, act_prob, seed, action,
    fallback_level, answers, reward, evening, decision_time, utc_offset_minutes, act_gen_timestamp)
SELECT p.study_id, p.id, n, v.id, v.hash, 'bench', 0, 'miwaves-1',
    ARRAY[(random() < .5)::int, (n % 2 = 0)::int, (random() < .5)::int]::float8[], 0, 0.1,
    0.3 + 0.4 * random(), 1, (random() < .5)::int, 'F0',
    '{"finished_ema": false, "app_use_flag": false}', floor(4 * random()), n % 2 = 0,
    now(), 0, now() - interval '1 day' + (n + 2 - :past) * CAST(:apart AS interval)
FROM participants p
JOIN protocols v ON v.study_id = p.study_id AND v.version = 1
CROSS JOIN generate_series(1, :past) n
WHERE p.study_id = :study_id
ORDER BY n, p.id
"""
WINDOWS = """
WITH ended AS (
    INSERT INTO windows
        (study_id, participant_id, decision_index, kind, state, query_start, query_end, ended_at, ingested_at)
    SELECT study_id, participant_id, decision_index, 'ended', 'ingested', act_gen_timestamp,
        act_gen_timestamp, act_gen_timestamp, act_gen_timestamp
    FROM decisions WHERE study_id = :study_id ORDER BY id RETURNING id, ended_at)
INSERT INTO jobs (study_id, kind, state, window_id, run_after, sent_at)
SELECT :study_id, 'ingest', 'done', id, ended_at, ended_at FROM ended
"""
NEXT_POINT = """
UPDATE participants p SET decision_index = decision_index + 1
WHERE study_id = :study_id AND EXISTS (
    SELECT FROM decisions d WHERE d.participant_id = p.id AND d.decision_index = p.decision_index + 1)
"""
NEW_OUTCOMES = """
WITH chosen AS (
    SELECT d.id, d.study_id, d.participant_id, d.reward, a.version, a.reward AS corrected
    FROM decisions d
    LEFT JOIN LATERAL (
        SELECT version, reward FROM answers WHERE decision_id = d.id ORDER BY version DESC LIMIT 1) a ON true
    WHERE d.study_id = :study_id AND d.decision_index = 2 ORDER BY d.id LIMIT :people),
counted AS (
    UPDATE participants SET corrections = corrections + 1 WHERE id IN (SELECT participant_id FROM chosen))
INSERT INTO answers (study_id, decision_id, version, source, item, reward)
SELECT study_id, id, coalesce(version, 0) + 1, 'ema', '{}', 3 - coalesce(corrected, reward) FROM chosen
"""


def settle(
    connection: Connection, study: str, people: int, past: int, apart: timedelta = timedelta(0)
) -> int:
    """Add participants p1, p2, ... to the study, each with `past` decisions; return the study's id.

    The decisions are `apart` from each other, and the last but two is a day old.
    """
    study_id = int(connection.scalar(text("SELECT id FROM studies WHERE name = :name"), {"name": study}) or 0)
    values = {"study_id": study_id, "people": people, "past": past}
    connection.execute(text(PEOPLE), values)
    connection.execute(text(PAST), values | {"apart": apart})
    return study_id


def add_windows(connection: Connection, study_id: int) -> None:
    """Add a window to every decision of the study, ended and ingested, with its job."""
    connection.execute(text(WINDOWS), {"study_id": study_id})


def next_point(connection: Connection, study_id: int) -> None:
    """End everybody's open window, so that each has a new decision point."""
    connection.execute(text(NEXT_POINT), {"study_id": study_id})


def new_outcomes(connection: Connection, study_id: int, people: int) -> None:
    """Correct an outcome of `people` participants, so that a refit has to read all their rows again."""
    connection.execute(text(NEW_OUTCOMES), {"study_id": study_id, "people": people})
