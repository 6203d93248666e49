"""Windows: the one way in which a decision point comes to its end, whoever ends it."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from models.core import audit, jobs
from models.core.audit import Actor
from models.core.jobs import INGEST, QueuedJob
from models.trial import decisions, participants, windows
from models.trial.acts import TrialAct
from models.trial.decisions import Decision
from models.trial.idempotency import END, keep
from models.trial.participants import COMPLETED_AWAITING_REVIEW, STARTED, Participant
from services.core import callers
from services.core.callers import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.trial import idempotency, protocols
from services.trial.faults import TrialFault


class EndedWindow(NamedTuple):
    """A window that is over: its decision index, its ingest job, and the jobs that this call queued."""

    decision_index: int
    job_id: int
    jobs: list[QueuedJob]


def close(
    session: Session, participant: Participant, decision: Decision, kind: str, now: datetime
) -> QueuedJob:
    """End the open window of a locked participant and queue its ingest.

    The span that the study's back end is asked for looks back by the rule under which the point was decided,
    whichever version is in force meanwhile.
    """
    look_back = timedelta(hours=protocols.loaded(session, decision.protocol_id).schedule.look_back_hours)
    job = windows.close(session, participant, kind, now, decision.act_gen_timestamp - look_back)
    return QueuedJob(INGEST, job.id)


def close_open(session: Session, participant: Participant, now: datetime) -> list[QueuedJob]:
    """End the open window of a locked participant, where there is one, as one that the app did not end."""
    decision = decisions.at(session, participant.id, participant.decision_index + 1)
    if decision is None:
        return []
    return [close(session, participant, decision, windows.END_MISSING, now)]


def close_stale(
    session: Session, participant_id: int, decided_before: datetime, now: datetime
) -> list[QueuedJob]:
    """End the open window of a participant if its point was decided before `decided_before`."""
    participant = participants.locked_by_id(session, participant_id)
    decision = decisions.at(session, participant_id, participant.decision_index + 1)
    if decision is None or decision.act_gen_timestamp >= decided_before:  # somebody was quicker
        return []
    return [close(session, participant, decision, windows.END_MISSING, now)]


def end(
    session: Session,
    caller: Caller,
    user_id: str,
    decision_index: int | None,
    key: str | None,
    now: datetime,
) -> EndedWindow:
    """End the window that a call means, or return the one that it ended before. Raises Refusal.

    1. A repeat comes before any check of phase or index: it gets the window that is over already.
    2. Otherwise the open window ends, if it is the one that the call means.
    3. The call's Idempotency-Key is kept with the window's decision index.
    """
    callers.check_standing(session, caller)
    study_id = caller.study_id
    index = idempotency.index_meant(session, study_id, user_id, END, key, decision_index)
    participant = participants.locked(session, study_id, user_id)
    if participant is None:
        raise Refusal(TrialFault.WINDOW_UNKNOWN)
    ended = _ended_before(session, participant, index)
    if ended is None:
        current = participant.decision_index + 1
        decision = decisions.at(session, participant.id, current)
        if index is not None and (decision is None or index != current):
            raise Refusal(TrialFault.WINDOW_UNDECIDED)
        if decision is None or participant.phase not in {STARTED, COMPLETED_AWAITING_REVIEW}:
            raise Refusal(TrialFault.WINDOW_PHASE)
        job = close(session, participant, decision, windows.ENDED_BY_APP, now)
        ended = EndedWindow(current, job.job_id, [job])
    if key is not None:
        keep(session, study_id, participant.id, END, key, ended.decision_index)
    return ended


def _ended_before(session: Session, participant: Participant, index: int | None) -> EndedWindow | None:
    """Return the window at `index` where it is over; without an index the last one, where nothing is open."""
    if index is not None:
        window = windows.at(session, participant.id, index)
    elif decisions.at(session, participant.id, participant.decision_index + 1) is None:
        window = windows.last_with_decision(session, participant.id)
    else:
        return None
    if window is None or window.kind == windows.MISSED:  # a missed point had no window to end
        return None
    return EndedWindow(window.decision_index, jobs.of_window(session, window.id).id, [])


def retry(session: Session, actor: Actor, window_id: int, now: datetime) -> QueuedJob:
    """Fetch the survey data of a failed window again, now. Raises Refusal where there is no such window."""
    job = windows.retry(session, actor.study_id, window_id, now)
    if job is None:
        raise Refusal(CoreFault.UNKNOWN)
    after = {"window_id": window_id, "job_id": job.id}
    audit.note(session, actor, TrialAct.RETRY_WINDOW, "asked for by hand", after=after)
    return QueuedJob(INGEST, job.id)
