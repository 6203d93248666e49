"""A dangerous act that is asked for over HTTP: it is proposed, and what can happen at once happens."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from api.core import broker
from api.core.endpoint import Reply
from api.oversight import approval
from api.oversight.approval import Settled, Told, Who
from models.core.session import transact
from services.core.actor import Caller


class Proposed(Reply):
    """The proposal of a dangerous act: `open` until another admin approves, `approved` where it happened."""

    proposal_id: int
    act: str
    state: str
    expires_at: datetime
    status_url: str


def who(caller: Caller) -> Who:
    """The admin who calls."""
    return Who(caller.study_id, caller.client_id)


def send(told: list[Told]) -> None:
    """Tell the workers of the jobs that an act made."""
    for job in told:
        broker.send(job.kind, job.job_id)


def propose(caller: Caller, act: str, arguments: Mapping[str, Any], reason: str) -> Proposed:
    """Propose an act in the caller's name. Raises Refusal."""
    now = datetime.now(UTC)

    def work(session: Session) -> Settled:
        return approval.propose(session, who(caller), act, arguments, reason, now)

    settled = transact(work)
    send(settled.jobs)
    proposal = settled.proposal
    return Proposed(
        proposal_id=proposal.id,
        act=proposal.act,
        state=proposal.state,
        expires_at=proposal.expires_at,
        status_url=f"/proposals/{proposal.id}",
    )
