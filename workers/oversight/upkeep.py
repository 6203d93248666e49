"""Upkeep on the beat: what was not sent, not finished or not ended, and the studies' nights."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models.core import db_errors, jobs, stale_claims, studies
from models.core.jobs import TRIES_SLOWLY, Job
from models.core.session import transact
from models.research.exports import EXPORT
from models.trial import fit_parts, participants, refits, windows
from models.trial.decisions import at
from settings import settings
from workers.core import isolated
from workers.core.celery_app import log, send, waiting
from workers.core.claims import OWN_FAULT
from workers.oversight import audit

KINDS = (jobs.INGEST, jobs.REFIT, jobs.NIGHT, EXPORT)
BATCH = 500
STALE = 10_000
TRIES = 6  # of a job whose worker died each time
DIED = "its worker died at every try"


def sweep() -> None:
    """Free the claims of dead workers, wake slow retries, and send ids that nobody took."""
    now = datetime.now(UTC)
    freed = transact(partial(_put_back, now))
    if freed:
        log.warning("claims put back", jobs=[job.id for job in freed])
    transact(lambda session: jobs.wake(session, now, TRIES_SLOWLY))
    transact(fit_parts.clear_abandoned)
    for kind in KINDS:
        _send_due(kind, now)


def _send_due(kind: str, now: datetime) -> None:
    """Send what nobody took. What may still lie in a queue needs no second message, or a backlog would feed
    itself; what was put back since it was last sent does not lie there."""
    lately = timedelta(seconds=2 * settings().sweep_seconds)
    sent_before = jobs.LONG_AGO if waiting(kind) else now - lately
    for job_id in transact(partial(jobs.due, kind=kind, now=now, sent_before=sent_before, limit=BATCH)):
        send(kind, job_id)


def _put_back(now: datetime, session: Session) -> list[Job]:
    """The claims that were freed; in the same transaction the window of a job that failed by it says so."""
    limit, slow = (timedelta(seconds=s) for s in (settings().claim_seconds, settings().slow_retry_seconds))
    freed = stale_claims.put_back(session, now, limit, _tries, slow, DIED)
    for job in freed:
        if job.state == jobs.FAILED and job.window_id is not None:
            job.code = OWN_FAULT
            windows.settle(session, job.window_id, windows.FAILED, OWN_FAULT, None)
    return freed


def _tries(job: Job) -> int:
    """Most tries of a job with a code of its study's back end were failures there and no deaths."""
    return TRIES if job.code in {None, OWN_FAULT} else TRIES_SLOWLY


def close_stale_windows() -> None:
    """End, in every study, the windows that are older than the protocol allows."""
    _in_each_study(_close_stale)


def _in_each_study(act: Callable[[int, datetime], None]) -> None:
    """Act on every study, each by itself."""
    isolated.each(
        transact(studies.ids),
        lambda study_id: act(study_id, datetime.now(UTC)),
        told="study is left out",
        name="study_id",
    )


def _close_stale(study_id: int, now: datetime) -> None:
    """Each window in a transaction of its own: many in one would keep their participants' calls waiting."""
    study = transact(partial(studies.by_id, study_id=study_id))
    schedule = transact(partial(studies.protocol, study=study)).document["schedule"]
    before = now - timedelta(hours=schedule["window_hours"])
    look_back = timedelta(hours=schedule["look_back_hours"])
    for participant_id in transact(partial(windows.stale, study=study, before=before, limit=STALE)):
        try:
            job_id = transact(partial(_close, participant_id, before, look_back))
        except DBAPIError as error:
            if db_errors.is_away(error):
                raise  # for all of them
            log.error("stale window stays open", participant_id=participant_id, error=type(error).__name__)
            continue
        if job_id is not None:
            send(jobs.INGEST, job_id)


def _close(participant_id: int, before: datetime, look_back: timedelta, session: Session) -> int | None:
    """The ingest job of a window that is stale still, or None."""
    participant = participants.locked_by_id(session, participant_id)
    decision = at(session, participant_id, participant.decision_index + 1)
    if decision is None or decision.act_gen_timestamp >= before:
        return None
    now, decided_at = datetime.now(UTC), decision.act_gen_timestamp
    return windows.close(session, participant, windows.END_MISSING, now, decided_at, look_back).id


def nightly() -> None:
    """See to the studies in which the protocol's hour of the night has come, once for each of their days."""
    _in_each_study(_begin_night)


def _begin_night(study_id: int, now: datetime) -> None:
    night = transact(partial(_nightly, study_id, now))
    if night is not None:
        send(jobs.REFIT, night.refit)
        send(jobs.NIGHT, night.checks)


class Night(NamedTuple):
    """The jobs of a study's night."""

    refit: int
    checks: int


def _nightly(study_id: int, now: datetime, session: Session) -> Night | None:
    """Queue what is due by the study's own calendar and tell its audit's head; None where nothing is.

    The day is noted with it: an outage is made up for as soon as it is over, by one fit and one look, and
    neither a second beat nor an hour that the clock strikes twice asks again.
    """
    study = studies.locked(session, study_id)
    rule = studies.protocol(session, study).document["refit"]
    local = now.astimezone(ZoneInfo(study.timezone))
    night = local.date() if local.hour >= rule["nightly_hour"] else local.date() - timedelta(days=1)
    before, study.nightly_on = study.nightly_on, max(night, study.nightly_on or night)
    if before is None or before >= night:  # None: made before the column was, and not seen to since
        return None
    week = night - timedelta(days=(night.weekday() - rule["weekly_day"]) % 7)
    refit = refits.request(session, study.id, now, hyperparameters=before < week)
    audit.publish(session, study.id, now)
    return Night(refit.job_id, jobs.add_night(session, study.id, now).id)
