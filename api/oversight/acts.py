"""What admins can do to a running trial, for HTTP and the command line alike; each act notes itself."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from api.oversight.approval import Doing, Told, Who, dangerous
from api.trial import serving
from models.core import audit, jobs, studies
from models.core.studies import Study
from models.trial import decisions, learning_rows, participants, policies, rebuilds, refits, windows
from models.trial.participants import ENDED, WITHDRAWN, Participant
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.oversight.faults import OversightFault
from services.trial.faults import TrialFault

REMOVE_DATA = "remove_from_learning"  # a protocol's rule for the data of who withdraws


def withdraw(session: Session, who: Who, participant_id: int, reason: str, now: datetime) -> list[Told]:
    """Take a participant out of the trial, their data by the protocol's rule. Raises Refusal."""
    participant = _participant(session, who.study_id, participant_id)
    if participant.phase == ENDED:
        raise Refusal(TrialFault.PARTICIPANT_ENDED)
    before = {"phase": participant.phase}
    told = _close(session, participant, now)
    participant.phase = WITHDRAWN
    after = {"phase": WITHDRAWN}
    audit.note(
        session, who.study_id, who.client_id, audit.WITHDRAW, reason, participant_id, before, after, who.role
    )
    version = studies.protocol(session, studies.by_id(session, who.study_id))
    rule = serving.loaded(session, version.id).document["withdrawal"]["data"]
    if rule == REMOVE_DATA and participant.removed_row_seq is None:
        told += _remove(session, Doing(who, reason, {"rule": "withdrawal.data"}, now), participant)
    return told


def _participant(session: Session, study_id: int, participant_id: int) -> Participant:
    participant = participants.locked_of_study(session, study_id, participant_id)
    if participant is None:
        raise Refusal(CoreFault.UNKNOWN)
    return participant


def _close(session: Session, participant: Participant, now: datetime) -> list[Told]:
    """End the open window of a locked participant."""
    decision = decisions.at(session, participant.id, participant.decision_index + 1)
    if decision is None:
        return []
    look_back = timedelta(hours=serving.loaded(session, decision.protocol_id).schedule.look_back_hours)
    job = windows.close(session, participant, windows.END_MISSING, now, decision.act_gen_timestamp, look_back)
    return [Told(jobs.INGEST, job.id)]


def set_paused(session: Session, who: Who, paused: bool, reason: str) -> Study:
    """Make new decisions, or none. Raises Refusal."""
    study = _open_study(session, who.study_id)
    before, study.paused = {"paused": study.paused}, paused
    _note(session, who, audit.PAUSE if paused else audit.RESUME, reason, before, {"paused": paused})
    return study


def set_frozen(session: Session, who: Who, frozen: bool, reason: str, now: datetime) -> list[Told]:
    """Let no new policy serve, or learn again: then with a refit from whatever has gathered."""
    study = studies.locked(session, who.study_id)
    before, study.learning_frozen = {"learning_frozen": study.learning_frozen}, frozen
    act = audit.FREEZE if frozen else audit.UNFREEZE
    _note(session, who, act, reason, before, {"learning_frozen": frozen})
    return [] if frozen else _refit(session, who.study_id, now)


def rebuild_statistics(session: Session, who: Who, reason: str, now: datetime) -> list[Told]:
    """Have the statistics made anew from the rows, and a policy from them."""
    asked = rebuilds.request(session, who.study_id, now, reason, who.client_id, who.role)
    return [Told(jobs.REFIT, asked.job_id)]


def _note(
    session: Session, who: Who, act: str, reason: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    audit.note(session, who.study_id, who.client_id, act, reason, None, before, after, who.role)


def _refit(session: Session, study_id: int, now: datetime) -> list[Told]:
    asked = refits.request(session, study_id, now, hyperparameters=False)
    return [Told(jobs.REFIT, asked.job_id)]


def _open_study(session: Session, study_id: int) -> Study:
    study = studies.locked(session, study_id)
    if study.closed_at is not None:
        raise Refusal(TrialFault.STUDY_CLOSED)
    return study


def _can_remove(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    if _participant(session, study_id, arguments["participant_id"]).removed_row_seq is not None:
        raise Refusal(OversightFault.REMOVED_ALREADY)


@dangerous(audit.REMOVE, _can_remove)
def _remove_by_proposal(session: Session, doing: Doing, arguments: Mapping[str, Any]) -> list[Told]:
    participant = _participant(session, doing.who.study_id, arguments["participant_id"])
    return _remove(session, doing, participant)


def _remove(session: Session, doing: Doing, participant: Participant) -> list[Told]:
    """Have a locked participant's data leave the policies from the next one on."""
    who = doing.who
    study = studies.locked(session, who.study_id)
    before = {"policy_id": study.policy_id, "row_seq": study.row_seq}
    after = {"removed_row_seq": learning_rows.remove(session, study, participant), **doing.noted}
    told = _refit(session, study.id, doing.now)
    after["refit_job_id"] = told[0].job_id
    audit.note(
        session, study.id, who.client_id, audit.REMOVE, doing.reason, participant.id, before, after, who.role
    )
    return told


def _can_activate(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    policy = policies.numbered(session, study_id, arguments["policy_id"])
    if policy is None:
        raise Refusal(CoreFault.UNKNOWN)
    if not policies.is_whole(session, policy):
        raise Refusal(OversightFault.POLICY_PRUNED)
    study = _open_study(session, study_id)
    made = serving.loaded(session, studies.protocol(session, study).id)
    if policy.feature_version != made.design.feature_version:
        raise Refusal(OversightFault.POLICY_OF_OTHERS)


@dangerous(audit.ROLLBACK, _can_activate)
def _activate(session: Session, doing: Doing, arguments: Mapping[str, Any]) -> list[Told]:
    """Pin a policy: it serves from the next decision on, and learning is frozen until somebody resumes it."""
    study = studies.locked(session, doing.who.study_id)
    before = {"policy_id": study.policy_id, "learning_frozen": study.learning_frozen}
    act = audit.ROLLBACK if arguments["policy_id"] < study.policy_id else audit.ACTIVATE
    study.policy_id, study.learning_frozen = arguments["policy_id"], True
    after = {"policy_id": study.policy_id, "learning_frozen": True, **doing.noted}
    _note(session, doing.who, act, doing.reason, before, after)
    return []


def _can_close(session: Session, study_id: int, arguments: Mapping[str, Any]) -> None:
    del arguments
    _open_study(session, study_id)


@dangerous(audit.CLOSE, _can_close)
def _close_study(session: Session, doing: Doing, arguments: Mapping[str, Any]) -> list[Told]:
    """Make no decision any more, for good, and let everybody see the key of the draws."""
    del arguments
    study = studies.locked(session, doing.who.study_id)
    before = {"paused": study.paused, "closed_at": None}
    study.paused, study.closed_at = True, doing.now
    after = {
        "paused": True,
        "closed_at": doing.now.isoformat(),
        "study_key": bytes(study.study_key).hex(),
        **doing.noted,
    }
    _note(session, doing.who, audit.CLOSE, doing.reason, before, after)
    return []
