"""Jobs: how the work behind a request fares, and the requests for a fit."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.core import broker
from api.core.endpoint import Domain, Reply
from api.trial import serving
from models.core import jobs, studies
from models.core.jobs import Job
from models.core.session import transact
from models.trial import refits
from services.core import actor
from services.core.actor import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal

domain = Domain("jobs")


class JobSeen(BaseModel):
    """A job: queued, running, done or failed; `code` and `reason` say why it failed or waits.

    `run_after`: it does not begin before. `policy_id` is that of the policy which serves after a refit. Where
    that is no new one, or keeps its hyper-parameters though others were asked for, `note` says why.
    """

    job_id: int
    kind: str
    state: str
    attempts: int
    code: int | None
    reason: str | None
    policy_id: int | None
    note: str | None
    created_at: datetime
    run_after: datetime
    finished_at: datetime | None


class JobReply(Reply):
    """One job."""

    job: JobSeen


class RefitRequested(Reply):
    """The job that does what was asked for; requests join it while it is queued."""

    job_id: int
    status_url: str


@domain.operation(
    "GET", "/jobs/<int:job_id>", roles={"client", "researcher", "admin"}, faults=(CoreFault.UNKNOWN,)
)
def show_job(job_id: int, caller: Caller) -> JobReply:
    """One job of your study."""
    job = transact(lambda session: jobs.of_study(session, caller.study_id, job_id))
    if job is None:
        raise Refusal(CoreFault.UNKNOWN)
    return JobReply(job=_seen(job))


def _seen(job: Job) -> JobSeen:
    result = job.result or {}
    goes_on = f"job {result['continued_by']} goes on with it" if "continued_by" in result else None
    return JobSeen(
        job_id=job.id,
        kind=job.kind,
        state=job.state,
        attempts=job.attempts,
        code=job.code,
        reason=job.reason,
        policy_id=result.get("policy_id"),
        note=result.get("note", goes_on),
        created_at=job.created_at,
        run_after=job.run_after,
        finished_at=job.finished_at,
    )


@domain.operation(
    "POST", "/update_parameters", roles={"client", "admin"}, status=202, standing_is_read_by_view=True
)
def update_parameters(caller: Caller) -> RefitRequested:
    """Ask for a refit of the posterior over all participants.

    One that the study's back end (role client) asks for begins as long after the last one as the protocol
    says (`refit.min_interval_minutes`), an admin's at once; one that failed is tried again in its own time.
    """
    return _request(caller, hyperparameters=False)


@domain.operation(
    "POST", "/update_hyperparameters", roles={"client", "admin"}, status=202, standing_is_read_by_view=True
)
def update_hyperparameters(caller: Caller) -> RefitRequested:
    """Ask for new hyper-parameters and a refit with them, which begins when any other one would."""
    return _request(caller, hyperparameters=True)


def _request(caller: Caller, hyperparameters: bool) -> RefitRequested:
    job_id = transact(lambda session: _queue(session, caller, datetime.now(UTC), hyperparameters))
    broker.send(jobs.REFIT, job_id)
    return RefitRequested(job_id=job_id, status_url=f"/jobs/{job_id}")


def _queue(session: Session, caller: Caller, now: datetime, hyperparameters: bool) -> int:
    role = actor.check_standing(session, caller)
    pause = _pause(session, caller.study_id) if role == "client" else refits.NO_PAUSE
    return refits.request(session, caller.study_id, now, hyperparameters, pause).job_id


def _pause(session: Session, study_id: int) -> timedelta:
    version = studies.protocol(session, studies.by_id(session, study_id))
    return timedelta(minutes=serving.loaded(session, version.id).refit.min_interval_minutes)
