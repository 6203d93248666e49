"""Dangerous acts: one admin proposes, another one approves, and only then the act happens.

An act joins by `dangerous`. Where a deployment needs one person only, or the act says that this once one is
enough, a proposal is approved as it is made, by the same account; everything is written down as otherwise.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from models.core import accounts, audit
from models.oversight import proposals
from models.oversight.proposals import APPROVED, OPEN, REJECTED, Proposal
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight.faults import OversightFault
from settings import settings


class Who(NamedTuple):
    """An admin who acts on a study; `role` is `operator` where it is at the command line in their name."""

    study_id: int
    client_id: int
    role: str | None = None


class Doing(NamedTuple):
    """An approved act on its way: who approved it, why it was proposed, what else the audit notes of it."""

    who: Who
    reason: str
    noted: Mapping[str, Any]
    now: datetime


class Told(NamedTuple):
    """A job that is to be sent after the transaction."""

    kind: str
    job_id: int


Check = Callable[[Session, int, Mapping[str, Any]], None]
Rule = Callable[[Session, int, Mapping[str, Any]], bool]
Perform = Callable[[Session, Doing, Mapping[str, Any]], list[Told]]


class Dangerous(NamedTuple):
    """check(session, study_id, arguments) raises Refusal where the act is not possible; perform does it.

    alone: whether one person may do it after all, with these arguments.
    """

    check: Check
    perform: Perform
    alone: Rule


class Settled(NamedTuple):
    """A proposal as it stands now, and the jobs to be sent where its act happened."""

    proposal: Proposal
    jobs: list[Told]


_acts: dict[str, Dangerous] = {}


def _never(_session: Session, _study_id: int, _arguments: Mapping[str, Any]) -> bool:
    return False


def dangerous(act: str, check: Check, alone: Rule = _never) -> Callable[[Perform], Perform]:
    """Register what an approved proposal of `act` does; `check` is asked when it is proposed and then."""

    def register(perform: Perform) -> Perform:
        _acts[act] = Dangerous(check, perform, alone)
        return perform

    return register


def propose(
    session: Session, who: Who, act: str, arguments: Mapping[str, Any], reason: str, now: datetime
) -> Settled:
    """Write the proposal down; where one person is enough, the act happens at once. Raises Refusal.

    Who asks the same again while it is open, as after a lost answer, gets the proposal that is there.
    """
    asked = _acts[act]
    asked.check(session, who.study_id, arguments)
    known = proposals.pending(session, who.study_id, act, arguments, reason, who.client_id, now)
    if known is not None:
        return Settled(known, [])
    expires_at = now + timedelta(hours=settings().proposal_hours)
    proposal = proposals.add(session, who.study_id, act, arguments, reason, who.client_id, expires_at)
    after = {"proposal_id": proposal.id, "act": act, "arguments": dict(arguments)}
    _note(session, who, audit.PROPOSE, reason, after)
    if settings().needs_two_persons and not asked.alone(session, who.study_id, arguments):
        return Settled(proposal, [])
    return _happen(session, who, proposal, now)


def approve(session: Session, who: Who, proposal_id: int, reason: str, now: datetime) -> Settled:
    """Let a proposed act happen. Raises Refusal."""
    proposal = _open(session, who, proposal_id, now)
    if settings().needs_two_persons and accounts.are_one(session, proposal.proposed_by, who.client_id):
        raise Refusal(OversightFault.SAME_PERSON)
    _acts[proposal.act].check(session, who.study_id, proposal.arguments)
    _note(session, who, audit.APPROVE, reason, {"proposal_id": proposal.id, "act": proposal.act})
    return _happen(session, who, proposal, now)


def reject(session: Session, who: Who, proposal_id: int, reason: str, now: datetime) -> Proposal:
    """Let a proposed act never happen; its own proposer may too. Raises Refusal."""
    proposal = _open(session, who, proposal_id, now)
    proposals.decide(session, proposal, REJECTED, who.client_id, now)
    _note(session, who, audit.REJECT, reason, {"proposal_id": proposal.id, "act": proposal.act})
    return proposal


def _open(session: Session, who: Who, proposal_id: int, now: datetime) -> Proposal:
    proposal = proposals.locked(session, who.study_id, proposal_id)
    if proposal is None:
        raise Refusal(CoreFault.UNKNOWN)
    if proposals.state(proposal, now) != OPEN:
        raise Refusal(OversightFault.PROPOSAL_OVER)
    return proposal


def _happen(session: Session, who: Who, proposal: Proposal, now: datetime) -> Settled:
    proposals.decide(session, proposal, APPROVED, who.client_id, now)
    noted = {"proposal_id": proposal.id, "proposed_by": proposal.proposed_by}
    doing = Doing(who, proposal.reason, noted, now)
    return Settled(proposal, _acts[proposal.act].perform(session, doing, proposal.arguments))


def _note(session: Session, who: Who, act: str, reason: str, after: Mapping[str, Any]) -> None:
    participant_id = after.get("arguments", {}).get("participant_id")
    audit.note(session, who.study_id, who.client_id, act, reason, participant_id, after=after, role=who.role)
