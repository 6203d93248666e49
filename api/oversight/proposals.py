"""Proposals: dangerous acts that wait for another admin, and what became of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from api.core import broker
from api.core.endpoint import Domain, Page, Reply, StrictBody
from api.core.fields import Sentence, coded
from models.core.audit import Act
from models.core.session import transact
from models.oversight import proposals
from models.oversight.proposals import Proposal
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight import approval
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

domain = Domain("proposals", __doc__)
OVER = (CoreFault.UNKNOWN, OversightFault.PROPOSAL_OVER)
CAN_FAIL = (
    *OVER,
    OversightFault.SAME_PERSON,
    OversightFault.REMOVED_ALREADY,
    TrialFault.POLICY_PRUNED,
    OversightFault.POLICY_OF_OTHERS,
    TrialFault.STUDY_CLOSED,
    OversightFault.NEEDS_AMENDMENT,
    OversightFault.PROTOCOL_SAME,
    OversightFault.PROTOCOL_WAITS,
    OversightFault.PROTOCOL_MOVED,
)


class Opinion(StrictBody):
    """The reason why an act should happen or not. It is kept for good and must not name a participant."""

    reason: Sentence = coded(CoreFault.FIELD, examples=["discussed with the safety board on Monday"])


class ProposalQuery(Page):
    """Proposals after the last id of the page before."""


class Proposed(Reply):
    """The proposal of a dangerous act: `open` until another admin approves, `approved` where it happened."""

    proposal_id: int
    act: str
    state: str
    expires_at: datetime
    status_url: str


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


def shown(proposal: Proposal, now: datetime) -> ProposalSeen:
    """Return a proposal as it is at this moment: whether it is `expired` depends on the time."""
    names = set(ProposalSeen.model_fields) - {"proposal_id", "state"}
    columns = {name: getattr(proposal, name) for name in names}
    return ProposalSeen(proposal_id=proposal.id, state=proposals.state(proposal, now), **columns)


@domain.operation("GET", "/proposals", roles={"researcher", "admin"})
def list_proposals(query: ProposalQuery, caller: Caller) -> ProposalPage:
    """Proposals of your study, whatever became of them."""
    now = datetime.now(UTC)
    page = transact(proposals.listed, caller.study_id, query.after, query.limit)
    return ProposalPage(proposals=[shown(proposal, now) for proposal in page])


@domain.operation(
    "GET", "/proposals/<int:proposal_id>", roles={"researcher", "admin"}, faults=(CoreFault.UNKNOWN,)
)
def show_proposal(proposal_id: int, caller: Caller) -> ProposalReply:
    """One proposal of your study."""
    proposal = transact(proposals.of_study, caller.study_id, proposal_id)
    if proposal is None:
        raise Refusal(CoreFault.UNKNOWN)
    return ProposalReply(proposal=shown(proposal, datetime.now(UTC)))


@domain.operation("POST", "/proposals/<int:proposal_id>/approve", roles={"admin"}, faults=CAN_FAIL)
def approve_proposal(proposal_id: int, body: Opinion, caller: Caller) -> ProposalReply:
    """Approve a proposed act: it happens now. Its proposer cannot, unless one person is enough."""
    now = datetime.now(UTC)
    outcome = transact(approval.approve, caller.actor, proposal_id, body.reason, now)
    broker.send(*outcome.jobs)
    return ProposalReply(proposal=shown(outcome.proposal, now))


@domain.operation("POST", "/proposals/<int:proposal_id>/reject", roles={"admin"}, faults=OVER)
def reject_proposal(proposal_id: int, body: Opinion, caller: Caller) -> ProposalReply:
    """Reject a proposed act: it never happens. Its own proposer may do so too."""
    now = datetime.now(UTC)
    proposal = transact(approval.reject, caller.actor, proposal_id, body.reason, now)
    return ProposalReply(proposal=shown(proposal, now))


def propose(caller: Caller, act: Act, arguments: Mapping[str, Any], reason: str) -> Proposed:
    """Propose a dangerous act in the caller's name; one that may happen at once happens. Raises Refusal."""
    outcome = transact(approval.propose, caller.actor, act, arguments, reason, datetime.now(UTC))
    broker.send(*outcome.jobs)
    proposal = outcome.proposal
    return Proposed(
        proposal_id=proposal.id,
        act=proposal.act,
        state=proposal.state,
        expires_at=proposal.expires_at,
        status_url=f"/proposals/{proposal.id}",
    )
