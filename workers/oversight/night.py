"""What a study needs once a night besides its fit: a job, begun again where its worker dies."""

from collections.abc import Callable
from datetime import UTC, datetime

from models.core import jobs, studies
from models.core.jobs import Job
from models.core.session import transact
from models.core.studies import Study
from models.trial import policies
from workers.core import isolated
from workers.core.celery_app import log
from workers.core.claims import guarded
from workers.oversight import audit, replay_sample
from workers.trial import sufficient_statistics

Check = Callable[[Study, datetime], object]


def run(job_id: int) -> None:
    """Claim, do each of the checks, finish."""
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    if job is not None:
        guarded(job, lambda: _see_to(job))


def _see_to(job: Job) -> None:
    study = transact(lambda session: studies.by_id(session, job.study_id))
    isolated.each(
        CHECKS,
        lambda name: CHECKS[name](study, datetime.now(UTC)),
        told="check of the night failed",
        name="check",
    )
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC)))


def _compare(study: Study, now: datetime) -> None:
    sufficient_statistics.compare(study.id, now)


def _prune(study: Study, _now: datetime) -> None:
    pruned = transact(lambda session: policies.prune(session, study.id))
    log.info("policies pruned", study_id=study.id, blocks=pruned)


CHECKS: dict[str, Check] = {
    "statistics": _compare,
    "policies": _prune,
    "audit": audit.verify,
    "replay": replay_sample.replay,
}
