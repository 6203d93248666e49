"""Requests for refits: they join while one waits."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from models.core.jobs import LONG_AGO
from models.core.session import Prepared

NO_PAUSE = timedelta()
REQUEST = Prepared(
    "request_refit",
    """
WITH due AS (
    SELECT greatest($3::timestamptz, max(finished_at) + $4::interval, (
        SELECT $3::timestamptz + $4::interval FROM jobs
        WHERE study_id = $1 AND kind = 'refit' AND state = 'running')) AS at
    FROM jobs WHERE study_id = $1 AND kind = 'refit')
INSERT INTO jobs (study_id, kind, hyperparameters, run_after, sent_at)
SELECT $1, 'refit', $2, at, CASE WHEN at <= $3 THEN $3 ELSE $5 END FROM due
ON CONFLICT (study_id) WHERE kind = 'refit' AND state = 'queued' DO UPDATE
SET requests = jobs.requests + 1, hyperparameters = jobs.hyperparameters OR excluded.hyperparameters,
    run_after = CASE WHEN jobs.code IS NULL THEN least(jobs.run_after, excluded.run_after)
                ELSE jobs.run_after END
RETURNING id, requests
""",
)


class Requested(NamedTuple):
    """The job that does a request's refit. `joined`: another request queued it before, and sent its id."""

    job_id: int
    joined: bool


def request(
    session: Session, study_id: int, now: datetime, hyperparameters: bool, pause: timedelta = NO_PAUSE
) -> Requested:
    """Join the study's queued refit or queue one, for a `pause` after its last one at the earliest.

    A fit that is running ends now at the earliest. A request that joins may bring the queued refit forward,
    as far as to its own pause, but not one that failed and waits to be tried again: its `code` says so.

    The conflict takes the row's lock, so a request either lands before the claim (and its rows are in the
    snapshot, which opens after the claim) or queues the next fit.
    """
    row = REQUEST.row(session, (study_id, hyperparameters, now, pause, LONG_AGO))
    if row is None:
        raise AssertionError("it inserts or updates")
    job_id, requests = row
    return Requested(job_id, joined=requests > 1)
