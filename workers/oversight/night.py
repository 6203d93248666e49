"""The night of a study: its fit, and a job of checks that is begun again where its worker dies."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from models.core import jobs, studies
from models.core.jobs import NIGHT, REFIT, Job, QueuedJob
from models.core.session import transact
from models.core.studies import Study
from models.trial import policies, refits
from services.trial import protocols
from workers.core import isolated
from workers.core.celery_app import log, send
from workers.core.claims import guarded
from workers.oversight import audit, replay_sample, statistics_check


def begin() -> None:
    """Begin the night of every study in which the protocol's hour has come, once for each of its days."""
    isolated.each(transact(studies.ids), _begin, event="study is left out", name="study_id")


def _begin(study_id: int) -> None:
    for job in transact(_queue, study_id, datetime.now(UTC)):
        send(*job)


def _queue(session: Session, study_id: int, now: datetime) -> list[QueuedJob]:
    """Queue what is due by the study's own calendar and publish its audit's head.

    The day is noted with it: an outage is made up for as soon as it is over, by one fit and one look, and
    neither a second beat nor an hour that the clock strikes twice asks again.
    """
    study = studies.locked(session, study_id)
    rule = protocols.in_force(session, study_id).refit
    local = now.astimezone(ZoneInfo(study.timezone))
    night = local.date() if local.hour >= rule.nightly_hour else local.date() - timedelta(days=1)
    before, study.nightly_on = study.nightly_on, max(night, study.nightly_on or night)
    if before is None or before >= night:  # None: made before the column was, and not seen to since
        return []
    week = night - timedelta(days=(night.weekday() - rule.weekly_day) % 7)
    refit = refits.request(session, study.id, now, hyperparameters=before < week)
    audit.publish(session, study.id, now)
    return [QueuedJob(REFIT, refit.job_id), QueuedJob(NIGHT, jobs.add_night(session, study.id, now).id)]


def run(job_id: int) -> None:
    """Claim a study's job of the night, do each of its checks, finish."""
    job = transact(jobs.claim, job_id, datetime.now(UTC))
    if job is not None:
        guarded(job, lambda: _check(job))


def _check(job: Job) -> None:
    study = transact(studies.by_id, job.study_id)
    isolated.each(
        CHECKS,
        lambda name: CHECKS[name](study, datetime.now(UTC)),
        event="check of the night failed",
        name="check",
    )
    transact(jobs.finish, job, datetime.now(UTC))


def _prune(study: Study, _now: datetime) -> None:
    blocks = transact(policies.prune, study.id)
    log.info("policies pruned", study_id=study.id, blocks=blocks)


CHECKS: dict[str, Callable[[Study, datetime], object]] = {
    "statistics": statistics_check.compare,
    "policies": _prune,
    "audit": audit.verify,
    "replay": replay_sample.replay,
}
