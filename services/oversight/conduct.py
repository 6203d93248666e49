"""Conduct: the acts of admins on a running trial, for HTTP and the command line alike; each notes itself."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from models.core import audit, studies
from models.core.audit import Actor
from models.core.jobs import REFIT, QueuedJob
from models.core.studies import Study
from models.oversight.acts import OversightAct
from models.trial import learning_rows, participants, policies, refits
from models.trial.acts import TrialAct
from models.trial.participants import ENDED, WITHDRAWN, Participant
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight.approval import ApprovedAct, dangerous
from services.oversight.faults import OversightFault
from services.trial import protocols, windows
from services.trial.faults import TrialFault

REMOVE_DATA = "remove_from_learning"  # a protocol's rule for the data of a participant who withdraws


def withdraw(
    session: Session, actor: Actor, participant_id: int, reason: str, now: datetime
) -> list[QueuedJob]:
    """Take a participant out of the trial, their data by the protocol's rule. Raises Refusal.

    An open window is closed and ingested first. Withdrawing twice changes nothing.
    """
    participant = _locked_participant(session, actor.study_id, participant_id)
    if participant.phase == ENDED:
        raise Refusal(TrialFault.PARTICIPANT_ENDED)
    before, after = {"phase": participant.phase}, {"phase": WITHDRAWN}
    jobs = windows.close_open(session, participant, now)
    participant.phase = WITHDRAWN
    act = OversightAct.WITHDRAW
    audit.note(session, actor, act, reason, participant_id=participant_id, before=before, after=after)
    rule = protocols.in_force(session, actor.study_id).document["withdrawal"]["data"]
    if rule == REMOVE_DATA and participant.removed_row_seq is None:
        by_rule = ApprovedAct(actor, reason, {"rule": "withdrawal.data"}, now)
        jobs += _remove(session, by_rule, participant)
    return jobs


def _locked_participant(session: Session, study_id: int, participant_id: int) -> Participant:
    """Return a participant of the study, locked. Raises Refusal where there is none."""
    participant = participants.locked_of_study(session, study_id, participant_id)
    if participant is None:
        raise Refusal(CoreFault.UNKNOWN)
    return participant


def set_paused(session: Session, actor: Actor, paused: bool, reason: str) -> None:
    """Stop new decisions in the actor's study, or allow them again. Raises Refusal."""
    study = _open_study(session, actor.study_id)
    before, study.paused = {"paused": study.paused}, paused
    act = OversightAct.PAUSE if paused else OversightAct.RESUME
    audit.note(session, actor, act, reason, before=before, after={"paused": paused})


def set_frozen(session: Session, actor: Actor, frozen: bool, reason: str, now: datetime) -> list[QueuedJob]:
    """Freeze learning, so that no new policy serves, or resume it with a refit from all that has gathered."""
    study = studies.locked(session, actor.study_id)
    before, study.learning_frozen = {"learning_frozen": study.learning_frozen}, frozen
    act = OversightAct.FREEZE if frozen else OversightAct.UNFREEZE
    audit.note(session, actor, act, reason, before=before, after={"learning_frozen": frozen})
    return [] if frozen else [_refit(session, actor.study_id, now)]


def _refit(session: Session, study_id: int, now: datetime) -> QueuedJob:
    """Request a refit and return its job."""
    return QueuedJob(REFIT, refits.request(session, study_id, now, hyperparameters=False).job_id)


def _open_study(session: Session, study_id: int) -> Study:
    """Return the study, locked. Raises Refusal where it is closed."""
    study = studies.locked(session, study_id)
    if study.closed_at is not None:
        raise Refusal(TrialFault.STUDY_CLOSED)
    return study


def _can_remove(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    """Raise Refusal where the participant is unknown, or their data are removed already."""
    participant = _locked_participant(session, study_id, arguments["participant_id"])
    if participant.removed_row_seq is not None:
        raise Refusal(OversightFault.REMOVED_ALREADY)


@dangerous(OversightAct.REMOVE, _can_remove)
def _remove_by_proposal(
    session: Session, approved: ApprovedAct, arguments: Mapping[str, Any]
) -> list[QueuedJob]:
    participant = _locked_participant(session, approved.actor.study_id, arguments["participant_id"])
    return _remove(session, approved, participant)


def _remove(session: Session, approved: ApprovedAct, participant: Participant) -> list[QueuedJob]:
    """Have a locked participant's data leave the policies from the next one on."""
    study = studies.locked(session, approved.actor.study_id)
    before = {"policy_id": study.policy_id, "row_seq": study.row_seq}
    after = {"removed_row_seq": learning_rows.remove(session, study, participant), **approved.noted}
    refit = _refit(session, study.id, approved.now)
    after["refit_job_id"] = refit.job_id
    audit.note(
        session,
        approved.actor,
        OversightAct.REMOVE,
        approved.reason,
        participant_id=participant.id,
        before=before,
        after=after,
    )
    return [refit]


def _can_activate(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    """Raise Refusal where the policy is unknown or pruned, or could not serve under the protocol in force."""
    policy = policies.numbered(session, study_id, arguments["policy_id"])
    if policy is None:
        raise Refusal(CoreFault.UNKNOWN)
    if not policies.is_whole(session, policy):
        raise Refusal(TrialFault.POLICY_PRUNED)
    study = _open_study(session, study_id)
    if policy.feature_version != protocols.in_force(session, study.id).design.feature_version:
        raise Refusal(OversightFault.POLICY_OF_OTHERS)


@dangerous(OversightAct.ROLLBACK, _can_activate)
def _activate(session: Session, approved: ApprovedAct, arguments: Mapping[str, Any]) -> list[QueuedJob]:
    """Pin a policy: it serves from the next decision on, and learning is frozen until somebody resumes it."""
    study = studies.locked(session, approved.actor.study_id)
    before = {"policy_id": study.policy_id, "learning_frozen": study.learning_frozen}
    is_older = arguments["policy_id"] < study.policy_id
    study.policy_id, study.learning_frozen = arguments["policy_id"], True
    after = {"policy_id": study.policy_id, "learning_frozen": True, **approved.noted}
    act = OversightAct.ROLLBACK if is_older else TrialAct.ACTIVATE
    audit.note(session, approved.actor, act, approved.reason, before=before, after=after)
    return []


@dangerous(OversightAct.CLOSE, lambda session, study_id, _arguments: _open_study(session, study_id))
def _close_study(session: Session, approved: ApprovedAct, arguments: Mapping[str, Any]) -> list[QueuedJob]:
    """Make no decision any more, for good, and publish the key of the draws."""
    del arguments
    study = studies.locked(session, approved.actor.study_id)
    before = {"paused": study.paused, "closed_at": None}
    study.paused, study.closed_at = True, approved.now
    after = {
        "paused": True,
        "closed_at": approved.now.isoformat(),
        "study_key": bytes(study.study_key).hex(),
        **approved.noted,
    }
    audit.note(session, approved.actor, OversightAct.CLOSE, approved.reason, before=before, after=after)
    return []
