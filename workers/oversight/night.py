"""The night of a study: its fit, and its checks, which are a job and so begin again if their worker dies."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from models.core import jobs, studies
from models.core.jobs import NIGHT, REFIT, QueuedJob
from models.core.session import transact
from models.core.studies import Study
from models.trial import policies, refits
from services.trial import protocols
from workers.core import isolated
from workers.core.celery_app import log, send
from workers.core.claims import guarded
from workers.oversight import audit, replay_sample, statistics_check


def begin() -> None:
    """Begin the night of every study in which the protocol's hour has come, once for each day of the study.

    1. For each study, queue its fit and its checks, and publish the head of its audit (`queue`).
    2. Send the ids of the two jobs.

    An error in one study does not keep the others from their night.
    """

    def begin_in(study_id: int) -> None:
        for job in transact(queue, study_id, datetime.now(UTC)):
            send(*job)

    isolated.each(transact(studies.ids), begin_in, event="study is left out", name="study_id")


def queue(session: Session, study_id: int, now: datetime) -> list[QueuedJob]:
    """Queue a study's jobs of the night, if its hour has come by the study's own calendar; return them."""
    study = studies.locked(session, study_id)
    rule = protocols.in_force(session, study_id).refit
    local = now.astimezone(ZoneInfo(study.timezone))
    night = local.date() if local.hour >= rule.nightly_hour else local.date() - timedelta(days=1)
    # The night is noted with its jobs. So an outage of several nights is made up for by one fit and one check
    # as soon as it is over, and neither a second beat nor an hour that the clock strikes twice queues again.
    before, study.nightly_on = study.nightly_on, max(night, study.nightly_on or night)
    if before is None or before >= night:  # None: a study older than this column, on its first look
        return []
    week = night - timedelta(days=(night.weekday() - rule.weekly_day) % 7)
    refit = refits.request(session, study.id, now, hyperparameters=before < week)
    audit.publish(session, study.id, now)
    return [QueuedJob(REFIT, refit.job_id), QueuedJob(NIGHT, jobs.add_night(session, study.id, now).id)]


def run(job_id: int) -> None:
    """Do the checks of one study's night.

    1. Claim the job.
    2. Do each check of CHECKS; an error in one does not keep the others from being done.
    3. Finish the job, or fail it with the first error.
    """
    job = transact(jobs.claim, job_id, datetime.now(UTC))
    if job is None:
        return

    def work() -> None:
        study = transact(studies.by_id, job.study_id)

        def check(name: str) -> None:
            CHECKS[name](study, datetime.now(UTC))

        isolated.each(CHECKS, check, event="check of the night failed", name="check")
        transact(jobs.finish, job, datetime.now(UTC))

    guarded(job, work)


def prune(study: Study, _now: datetime) -> None:
    """Delete the blocks of a study's policies that never served."""
    blocks = transact(policies.prune, study.id)
    log.info("policies pruned", study_id=study.id, blocks=blocks)


CHECKS: dict[str, Callable[[Study, datetime], object]] = {
    "statistics": statistics_check.compare,
    "policies": prune,
    "audit": audit.verify,
    "replay": replay_sample.replay,
}
