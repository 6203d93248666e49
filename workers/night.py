"""What a study needs once a night besides its fit: a job, begun again where its worker dies."""

from collections.abc import Callable
from datetime import UTC, datetime

from celery.exceptions import SoftTimeLimitExceeded

from logs import where
from models import away, jobs, policies, studies
from models.jobs import Job
from models.session import transact
from models.studies import Study
from workers import heads, sample, statistics
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
    met = [error for name, check in CHECKS.items() if (error := _met(name, check, study))]
    if met:
        raise met[0]
    transact(lambda session: jobs.finish(session, job, datetime.now(UTC)))


def _met(name: str, check: Check, study: Study) -> Exception | None:
    """What kept the check from its end, if anything: it keeps none of the others from theirs."""
    try:
        check(study, datetime.now(UTC))
    except Exception as error:
        if away.is_away(error) or isinstance(error, SoftTimeLimitExceeded):
            raise  # for all of them
        log.error("check of the night failed", check=name, error=where(error))
        return error
    return None


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
