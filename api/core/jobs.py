"""Jobs: how the work behind a request fares."""

from datetime import datetime

from pydantic import BaseModel

from api.core.endpoint import Domain, Reply
from api.core.examples import EXAMPLES
from models.core import jobs
from models.core.session import transact
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal

domain = Domain("jobs", __doc__, EXAMPLES)


class JobSeen(BaseModel):
    """A job: queued, running, done or failed; `code` and `reason` say why it failed or waits.

    It does not begin before `run_after`. `policy_id` is that of the policy which serves after a refit. Where
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


@domain.operation(
    "GET", "/jobs/<int:job_id>", roles={"client", "researcher", "admin"}, faults=(CoreFault.UNKNOWN,)
)
def show_job(job_id: int, caller: Caller) -> JobReply:
    """One job of your study."""
    job = transact(jobs.of_study, caller.study_id, job_id)
    if job is None:
        raise Refusal(CoreFault.UNKNOWN)
    result = job.result or {}
    continuation = f"job {result['continued_by']} goes on with it" if "continued_by" in result else None
    return JobReply(
        job=JobSeen(
            job_id=job.id,
            kind=job.kind,
            state=job.state,
            attempts=job.attempts,
            code=job.code,
            reason=job.reason,
            policy_id=result.get("policy_id"),
            note=result.get("note", continuation),
            created_at=job.created_at,
            run_after=job.run_after,
            finished_at=job.finished_at,
        )
    )
