"""Approval: one admin proposes a dangerous act, another one approves, and only then the act happens.

An act joins by `dangerous`. Where the deployment needs one person only, or the act needs no second one with
these arguments, a proposal is approved as it is made, by the same account; the audit notes it all the same.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from models.core import accounts, audit
from models.core.audit import Act, Actor
from models.core.jobs import QueuedJob
from models.oversight import proposals
from models.oversight.acts import OversightAct
from models.oversight.proposals import APPROVED, OPEN, REJECTED, Proposal
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight.faults import OversightFault
from settings import settings


class ApprovedAct(NamedTuple):
    """An approved act on its way: its approver, the proposal's reason, and further entries for the audit."""

    actor: Actor
    reason: str
    noted: Mapping[str, Any]
    now: datetime


class ProposalOutcome(NamedTuple):
    """A proposal as it stands now, and the jobs to be sent where its act happened."""

    proposal: Proposal
    jobs: list[QueuedJob]


Check = Callable[[Session, int, Mapping[str, Any]], object]
Perform = Callable[[Session, ApprovedAct, Mapping[str, Any]], list[QueuedJob]]
Rule = Callable[[Session, int, Mapping[str, Any]], bool]


class DangerousAct(NamedTuple):
    """An act that needs two persons.

    check(session, study_id, arguments) raises Refusal where the act is not possible; perform does the act.
    alone(session, study_id, arguments) is true where one person may do it after all.
    """

    check: Check
    perform: Perform
    alone: Rule


_acts: dict[str, DangerousAct] = {}


def dangerous(
    act: Act, check: Check, alone: Rule = lambda _session, _study_id, _arguments: False
) -> Callable[[Perform], Perform]:
    """Register the function that does a proposed `act`; `check` runs at the proposal and at the approval."""

    def register(perform: Perform) -> Perform:
        _acts[act] = DangerousAct(check, perform, alone)
        return perform

    return register


def propose(
    session: Session, actor: Actor, act: Act, arguments: Mapping[str, Any], reason: str, now: datetime
) -> ProposalOutcome:
    """Write a proposal down; where one person is enough, the act happens at once. Raises Refusal.

    A repeat while the same proposal is open, as after a lost answer, gets the proposal that is there.
    """
    study_id, client_id = actor.study_id, _account(actor)
    dangerous_act = _acts[act]
    dangerous_act.check(session, study_id, arguments)
    pending = proposals.pending(session, study_id, act, arguments, reason, client_id, now)
    if pending is not None:  # the caller got no answer and asks again
        return ProposalOutcome(pending, [])
    expires_at = now + timedelta(hours=settings().proposal_hours)
    proposal = proposals.add(session, study_id, act, arguments, reason, client_id, expires_at)
    after = {"proposal_id": proposal.id, "act": act, "arguments": dict(arguments)}
    participant_id = arguments.get("participant_id")
    audit.note(session, actor, OversightAct.PROPOSE, reason, participant_id=participant_id, after=after)
    if settings().needs_two_persons and not dangerous_act.alone(session, study_id, arguments):
        return ProposalOutcome(proposal, [])
    return _perform(session, actor, proposal, now)


def approve(session: Session, actor: Actor, proposal_id: int, reason: str, now: datetime) -> ProposalOutcome:
    """Let a proposed act happen. Raises Refusal."""
    proposal = _open_proposal(session, actor, proposal_id, now)
    is_proposer = accounts.are_one(session, proposal.proposed_by, _account(actor))
    if settings().needs_two_persons and is_proposer:
        raise Refusal(OversightFault.SAME_PERSON)
    _acts[proposal.act].check(session, actor.study_id, proposal.arguments)
    after = {"proposal_id": proposal.id, "act": proposal.act}
    audit.note(session, actor, OversightAct.APPROVE, reason, after=after)
    return _perform(session, actor, proposal, now)


def reject(session: Session, actor: Actor, proposal_id: int, reason: str, now: datetime) -> Proposal:
    """Let a proposed act never happen; its own proposer may do so too. Raises Refusal."""
    proposal = _open_proposal(session, actor, proposal_id, now)
    proposals.decide(session, proposal, REJECTED, _account(actor), now)
    after = {"proposal_id": proposal.id, "act": proposal.act}
    audit.note(session, actor, OversightAct.REJECT, reason, after=after)
    return proposal


def _open_proposal(session: Session, actor: Actor, proposal_id: int, now: datetime) -> Proposal:
    """Return an open proposal, locked. Raises Refusal where it is unknown, decided or expired."""
    proposal = proposals.locked(session, actor.study_id, proposal_id)
    if proposal is None:
        raise Refusal(CoreFault.UNKNOWN)
    if proposals.state(proposal, now) != OPEN:
        raise Refusal(OversightFault.PROPOSAL_OVER)
    return proposal


def _perform(session: Session, actor: Actor, proposal: Proposal, now: datetime) -> ProposalOutcome:
    """Let the act of a proposal happen, with `actor` as its approver."""
    proposals.decide(session, proposal, APPROVED, _account(actor), now)
    noted = {"proposal_id": proposal.id, "proposed_by": proposal.proposed_by}
    approved = ApprovedAct(actor, proposal.reason, noted, now)
    jobs = _acts[proposal.act].perform(session, approved, proposal.arguments)
    return ProposalOutcome(proposal, jobs)


def _account(actor: Actor) -> int:
    """Return the account of an actor: proposals are made and decided in the name of an account."""
    if actor.client_id is None:
        raise AssertionError("a proposal needs an account")
    return actor.client_id
