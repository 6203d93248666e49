"""What a study needs once a night besides its fit: a job, begun again where its worker dies."""

from collections.abc import Callable
from datetime import UTC, datetime

from models import jobs, policies, studies
from models.jobs import Job
from models.session import transact
from models.studies import Study
from workers import apart, heads, sample, statistics
from workers.app import log
from workers.claims import guarded

Check = Callable[[Study, datetime], object]


def run(job_id: int) -> None:
    """Claim, do each of the checks, finish."""
    job = transact(lambda session: jobs.claim(session, job_id, datetime.now(UTC)))
    if job is not None:
        guarded(job, lambda: _see_to(job))


def _see_to(job: Job) -> None:
    study = transact(lambda session: studies.by_id(session, job.study_id))
    apart.each(
        CHECKS,
        lambda name: CHECKS[name](study, datetime.now(UTC)),
        told="check of the night failed",
        name="check",
    )
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC)))


def _compare(study: Study, now: datetime) -> None:
    statistics.compare(study.id, now)


def _prune(study: Study, _now: datetime) -> None:
    pruned = transact(lambda session: policies.prune(session, study.id))
    log.info("policies pruned", study_id=study.id, blocks=pruned)


CHECKS: dict[str, Check] = {
    "statistics": _compare,
    "policies": _prune,
    "audit": heads.verify,
    "replay": sample.replay,
}
