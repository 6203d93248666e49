"""Upkeep on the beat: what was not sent, what was not finished, what nobody ended, and the nightly refits."""

from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models import away, dead, jobs, participants, parts, policies, refits, studies, windows
from models.decisions import at
from models.exports import EXPORT
from models.jobs import Job
from models.refits import Requested
from models.session import transact
from models.studies import Study
from settings import settings
from workers import statistics
from workers.app import log, send, waiting
from workers.claims import OWN_FAULT

BATCH = 500
STALE = 10_000
TRIES = 6  # of a job whose worker died each time
TRIES_SLOWLY = 30
DIED = "its worker died at every try"


def sweep() -> None:
    """Free the claims of dead workers, wake slow retries, and send ids that nobody took."""
    now = datetime.now(UTC)
    freed = transact(partial(_put_back, now))
    if freed:
        log.warning("claims put back", jobs=[job.id for job in freed])
    transact(lambda session: jobs.wake(session, now, TRIES_SLOWLY))
    transact(parts.clear_abandoned)
    older = timedelta(seconds=2 * settings().sweep_seconds)
    # what still lies in a queue needs no second message: a backlog would feed itself
    empty = [kind for kind in (jobs.INGEST, jobs.REFIT, EXPORT) if not waiting(kind)]
    for job_id, kind in transact(lambda session: jobs.due(session, empty, now, older, BATCH)):
        send(kind, job_id)


def _put_back(now: datetime, session: Session) -> list[Job]:
    """The claims that were freed; in the same transaction the window of a job that failed by it says so."""
    limit = timedelta(seconds=settings().claim_seconds)
    freed = dead.put_back(session, now, limit, _tries, DIED)
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
    for study in transact(studies.everyone):
        _close_stale(study, datetime.now(UTC))


def _close_stale(study: Study, now: datetime) -> None:
    """Each window in a transaction of its own: many in one would keep their participants' calls waiting."""
    schedule = transact(partial(studies.protocol, study=study)).document["schedule"]
    before = now - timedelta(hours=schedule["window_hours"])
    look_back = timedelta(hours=schedule["look_back_hours"])
    for participant_id in transact(partial(windows.stale, study=study, before=before, limit=STALE)):
        try:
            job_id = transact(partial(_close, participant_id, before, look_back))
        except DBAPIError as error:
            if away.is_away(error):
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
    for study in transact(studies.everyone):
        now = datetime.now(UTC)
        refit = transact(partial(_nightly, study.id, now))
        if refit is not None:
            send(jobs.REFIT, refit.job_id)
            _tidy(study.id, now)


def _nightly(study_id: int, now: datetime, session: Session) -> Requested | None:
    """Ask for the refit that is due by the study's own calendar; None where there is none.

    The day is noted with the request: an outage is made up for as soon as it is over, by one fit, and neither
    a second beat nor an hour that the clock strikes twice asks again.
    """
    study = studies.locked(session, study_id)
    rule = studies.protocol(session, study).document["refit"]
    local = now.astimezone(ZoneInfo(study.timezone))
    night = local.date() if local.hour >= rule["nightly_hour"] else local.date() - timedelta(days=1)
    before, study.nightly_on = study.nightly_on, max(night, study.nightly_on or night)
    if before is None or before >= night:  # a new study has nothing to learn from yet
        return None
    week = night - timedelta(days=(night.weekday() - rule["weekly_day"]) % 7)
    return refits.request(session, study.id, now, hyperparameters=before < week)


def _tidy(study_id: int, now: datetime) -> None:
    """What a study needs once a day besides."""
    statistics.compare(study_id, now)
    pruned = transact(lambda session: policies.prune(session, study_id))
    log.info("policies pruned", study_id=study_id, blocks=pruned)
