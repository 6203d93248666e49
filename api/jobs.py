"""Jobs: how the work behind a request fares, and the requests for a fit."""

from datetime import UTC, datetime

from pydantic import BaseModel

from api import queue
from api.auth import Caller
from api.endpoint import Domain, Reply
from api.errors import Fault, Refusal
from models import jobs, refits
from models.session import transact

domain = Domain("jobs")


class JobSeen(BaseModel):
    """A job: queued, running, done or failed; `code` and `reason` say why it failed or waits."""

    job_id: int
    kind: str
    state: str
    attempts: int
    code: int | None
    reason: str | None
    policy_id: int | None
    created_at: datetime
    finished_at: datetime | None


class JobReply(Reply):
    """One job."""

    job: JobSeen


class Requested(Reply):
    """The job that does what was asked for; requests join it while it is queued."""

    job_id: int
    status_url: str


@domain.operation(
    "GET", "/jobs/<int:job_id>", roles={"client", "researcher", "admin"}, faults=(Fault.UNKNOWN,)
)
def show_job(job_id: int, caller: Caller) -> JobReply:
    """One job of your study."""
    job = transact(lambda session: jobs.of_study(session, caller.study_id, job_id))
    if job is None:
        raise Refusal(Fault.UNKNOWN)
    return JobReply(
        job=JobSeen(
            job_id=job.id,
            kind=job.kind,
            state=job.state,
            attempts=job.attempts,
            code=job.code,
            reason=job.reason,
            policy_id=(job.result or {}).get("policy_id"),
            created_at=job.created_at,
            finished_at=job.finished_at,
        )
    )


@domain.operation("POST", "/update_parameters", roles={"client", "admin"}, status=202)
def update_parameters(caller: Caller) -> Requested:
    """Ask for a refit of the posterior over all participants."""
    return _request(caller, hyperparameters=False)


@domain.operation("POST", "/update_hyperparameters", roles={"client", "admin"}, status=202)
def update_hyperparameters(caller: Caller) -> Requested:
    """Ask for new hyper-parameters and a refit with them."""
    return _request(caller, hyperparameters=True)


def _request(caller: Caller, hyperparameters: bool) -> Requested:
    now = datetime.now(UTC)
    job_id, _ = transact(lambda session: refits.request(session, caller.study_id, now, hyperparameters))
    queue.send(jobs.REFIT, job_id)
    return Requested(job_id=job_id, status_url=f"/jobs/{job_id}")
