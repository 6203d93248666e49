"""Proposals: dangerous acts that wait for another admin, and what became of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.core.cli import Commands, tell
from api.core.endpoint import Domain, Query, Reply, StrictBody
from api.core.fields import Sentence, coded
from api.oversight import approval, operating
from api.oversight.approval import Who
from api.oversight.proposing import send, who
from models.core.session import transact
from models.oversight import proposals
from models.oversight.proposals import Proposal
from services.core.actor import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

domain = Domain("proposals")
commands = Commands("proposal", help="Dangerous acts that wait for another admin.")
OVER = (CoreFault.UNKNOWN, OversightFault.PROPOSAL_OVER)
CAN_FAIL = (
    *OVER,
    OversightFault.SAME_PERSON,
    OversightFault.REMOVED_ALREADY,
    OversightFault.POLICY_PRUNED,
    OversightFault.POLICY_OF_OTHERS,
    TrialFault.STUDY_CLOSED,
    OversightFault.NEEDS_AMENDMENT,
    OversightFault.PROTOCOL_SAME,
    OversightFault.PROTOCOL_WAITS,
    OversightFault.PROTOCOL_MOVED,
)


class Opinion(StrictBody):
    """Why it should happen, or not. Kept for good: it must not name a participant."""

    reason: Sentence = coded(CoreFault.FIELD, examples=["discussed with the safety board on Monday"])


class ProposalQuery(Query):
    """Proposals after the last id of the page before."""

    after: int = Field(default=0, ge=0, le=2**63 - 1)
    limit: int = Field(default=100, ge=1, le=1000)


class ProposalSeen(BaseModel):
    """A proposed act. `state` is open, expired, approved (it happened) or rejected; accounts by number."""

    proposal_id: int
    act: str
    arguments: dict[str, Any]
    reason: str
    state: str
    proposed_by: int
    created_at: datetime
    expires_at: datetime
    decided_by: int | None
    decided_at: datetime | None


class ProposalReply(Reply):
    """One proposal."""

    proposal: ProposalSeen


class ProposalPage(Reply):
    """Proposals by id."""

    proposals: list[ProposalSeen]


def _seen(proposal: Proposal, now: datetime) -> ProposalSeen:
    names = set(ProposalSeen.model_fields) - {"proposal_id", "state"}
    told = {name: getattr(proposal, name) for name in names}
    return ProposalSeen(proposal_id=proposal.id, state=proposals.state(proposal, now), **told)


@domain.operation("GET", "/proposals", roles={"researcher", "admin"})
def list_proposals(query: ProposalQuery, caller: Caller) -> ProposalPage:
    """Proposals of your study, whatever became of them."""
    now = datetime.now(UTC)
    found = transact(lambda session: proposals.listed(session, caller.study_id, query.after, query.limit))
    return ProposalPage(proposals=[_seen(proposal, now) for proposal in found])


@domain.operation(
    "GET", "/proposals/<int:proposal_id>", roles={"researcher", "admin"}, faults=(CoreFault.UNKNOWN,)
)
def show_proposal(proposal_id: int, caller: Caller) -> ProposalReply:
    """One proposal of your study."""
    found = transact(lambda session: proposals.of_study(session, caller.study_id, proposal_id))
    if found is None:
        raise Refusal(CoreFault.UNKNOWN)
    return ProposalReply(proposal=_seen(found, datetime.now(UTC)))


@domain.operation("POST", "/proposals/<int:proposal_id>/approve", roles={"admin"}, faults=CAN_FAIL)
def approve_proposal(proposal_id: int, body: Opinion, caller: Caller) -> ProposalReply:
    """Let a proposed act happen, now. Its proposer cannot, unless one person is enough in the deployment."""
    now = datetime.now(UTC)
    settled = transact(lambda session: approval.approve(session, who(caller), proposal_id, body.reason, now))
    send(settled.jobs)
    return ProposalReply(proposal=_seen(settled.proposal, now))


@domain.operation("POST", "/proposals/<int:proposal_id>/reject", roles={"admin"}, faults=OVER)
def reject_proposal(proposal_id: int, body: Opinion, caller: Caller) -> ProposalReply:
    """Let a proposed act never happen. Its own proposer may too."""
    now = datetime.now(UTC)
    found = transact(lambda session: approval.reject(session, who(caller), proposal_id, body.reason, now))
    return ProposalReply(proposal=_seen(found, now))


@commands.command("list")
@click.argument("study")
def list_command(study: str) -> None:
    """List the proposals of STUDY."""
    now = datetime.now(UTC)
    found = transact(lambda session: proposals.listed(session, operating.study(session, study).id, 0, 10_000))
    tell(proposals=[_seen(proposal, now).model_dump(mode="json") for proposal in found])


@commands.command("approve")
@operating.in_the_name_of
@click.argument("proposal_id", type=int)
def approve_command(study: str, proposal_id: int, account: str, reason: str) -> None:
    """Let a proposed act happen, now."""
    _decide(study, account, lambda *told: approval.approve(*told).proposal, proposal_id, reason)


@commands.command("reject")
@operating.in_the_name_of
@click.argument("proposal_id", type=int)
def reject_command(study: str, proposal_id: int, account: str, reason: str) -> None:
    """Let a proposed act never happen."""
    _decide(study, account, approval.reject, proposal_id, reason)


def _decide(
    study: str,
    account: str,
    decision: Callable[[Session, Who, int, str, datetime], Proposal],
    proposal_id: int,
    reason: str,
) -> None:
    now = datetime.now(UTC)

    def work(session: Session) -> Proposal:
        return decision(session, operating.who(session, study, account), proposal_id, reason, now)

    tell(proposal=_seen(transact(work), now).model_dump(mode="json"))
