"""The conduct of a trial: what its admins do to it while it runs, each time with a reason that is kept."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from api import queue, serving
from api.auth import Caller
from api.endpoint import Domain, Reply, StrictBody
from api.errors import Fault, Refusal
from api.fields import Sentence, coded
from models import audit, decisions, jobs, participants, studies, windows
from models.participants import ENDED, WITHDRAWN, Participant
from models.session import transact

domain = Domain("conduct")


class Reason(StrictBody):
    """Why. Kept for good: it must not name the participant."""

    reason: Sentence = coded(Fault.FIELD, examples=["asked by telephone to leave the study"])


class Withdrawn(Reply):
    """The participant is out of the trial; what was decided until now stays."""

    participant_id: int
    phase: str


class Paused(Reply):
    """Whether new decisions are made in the study."""

    paused: bool


@domain.operation(
    "POST",
    "/participants/<int:participant_id>/withdraw",
    roles={"admin"},
    faults=(Fault.UNKNOWN, Fault.PARTICIPANT_ENDED),
)
def withdraw(participant_id: int, body: Reason, caller: Caller) -> Withdrawn:
    """Take a participant out of the trial: an open window is closed and ingested, no decision follows.

    Repeats of earlier calls are still answered as they were. Withdrawing twice changes nothing.
    """
    job_id = transact(lambda session: _withdraw(session, caller, participant_id, body, datetime.now(UTC)))
    if job_id is not None:
        queue.send(jobs.INGEST, job_id)
    return Withdrawn(participant_id=participant_id, phase=WITHDRAWN)


def _withdraw(
    session: Session, caller: Caller, participant_id: int, body: Reason, now: datetime
) -> int | None:
    """The ingest job of the window that this closed, or None."""
    participant = participants.locked_of_study(session, caller.study_id, participant_id)
    if participant is None:
        raise Refusal(Fault.UNKNOWN)
    if participant.phase == ENDED:
        raise Refusal(Fault.PARTICIPANT_ENDED)
    audit.note(session, caller.study_id, caller.client_id, audit.WITHDRAW, body.reason, participant_id)
    job_id = _close(session, participant, now)
    participant.phase = WITHDRAWN
    session.flush()
    return job_id


def _close(session: Session, participant: Participant, now: datetime) -> int | None:
    decision = decisions.at(session, participant.id, participant.decision_index + 1)
    if decision is None:
        return None
    look_back = timedelta(hours=serving.loaded(session, decision.protocol_id).schedule.look_back_hours)
    return windows.close(
        session, participant, windows.END_MISSING, now, decision.act_gen_timestamp, look_back
    ).id


@domain.operation("POST", "/study/pause", roles={"admin"})
def pause(body: Reason, caller: Caller) -> Paused:
    """Make no new decisions in your study. Repeats, ends of windows and ingest go on."""
    return _set_paused(caller, audit.PAUSE, body, paused=True)


@domain.operation("POST", "/study/resume", roles={"admin"})
def resume(body: Reason, caller: Caller) -> Paused:
    """Make decisions again."""
    return _set_paused(caller, audit.RESUME, body, paused=False)


def _set_paused(caller: Caller, act: str, body: Reason, paused: bool) -> Paused:
    def work(session: Session) -> None:
        studies.locked(session, caller.study_id).paused = paused
        audit.note(session, caller.study_id, caller.client_id, act, body.reason)

    transact(work)
    return Paused(paused=paused)
