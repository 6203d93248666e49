"""Windows: the app says that a decision window is over; ops see what became of it."""

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from algorithm.trial.protocol import Protocol
from api.core import broker
from api.core.endpoint import Body, Domain, Query, Reply
from api.core.fields import DecisionIndex, Printable, coded
from api.trial import idempotency, serving
from models.core import audit, jobs, studies
from models.core.jobs import Job
from models.core.session import transact
from models.trial import decisions, participants, windows
from models.trial.idempotency import END, keep
from models.trial.participants import COMPLETED_AWAITING_REVIEW, STARTED, Participant
from models.trial.windows import Window
from services.core import actor
from services.core.actor import Caller
from services.core.faults import CoreFault
from services.core.refusals import Refusal
from services.trial.faults import TrialFault

domain = Domain("windows")


class WindowEnd(Body):
    """Whose window is over, and of which decision where the app knows."""

    user_id: Printable = coded(TrialFault.ACTION_USER, examples=["p-017"])
    decision_index: DecisionIndex | None = coded(CoreFault.FIELD, default=None, examples=[1])


class Ended(Reply):
    """The job that fetches the window's survey data, and where to ask how it fares."""

    message: str
    decision_index: int
    job_id: int
    status_url: str


class Found(NamedTuple):
    """A window's index and its ingest job, which is new where this call ended the window."""

    decision_index: int
    job_id: int
    is_new: bool


@domain.operation(
    "POST",
    "/end_decision_window",
    roles={"client", "admin"},
    status=202,
    faults=(TrialFault.WINDOW_UNKNOWN, TrialFault.WINDOW_PHASE, TrialFault.WINDOW_UNDECIDED),
    standing_is_read_by_view=True,
)
def end_decision_window(body: WindowEnd, caller: Caller, key: str | None) -> Ended:
    """End the window of the current decision; its survey data is fetched and learnt from afterwards.

    A repeat before the next decision gives the same job. With decision_index, or under the same
    Idempotency-Key, that holds at any time.
    """
    found = transact(lambda session: _end(session, caller, body, key, datetime.now(UTC)))
    if found.is_new:
        broker.send(jobs.INGEST, found.job_id)
    return Ended(
        message="Decision window ended.",
        decision_index=found.decision_index,
        job_id=found.job_id,
        status_url=f"/jobs/{found.job_id}",
    )


def _end(session: Session, caller: Caller, body: WindowEnd, key: str | None, now: datetime) -> Found:
    actor.check_standing(session, caller)
    study_id = caller.study_id
    asked = idempotency.index_meant(session, study_id, body.user_id, END, key, body.decision_index)
    participant = participants.locked(session, study_id, body.user_id)
    if participant is None:
        raise Refusal(TrialFault.WINDOW_UNKNOWN)
    found = _ended_before(session, participant, asked) or _close(session, participant, asked, now)
    if key is not None:
        keep(session, study_id, participant.id, END, key, found.decision_index)
    return found


def _ended_before(session: Session, participant: Participant, asked: int | None) -> Found | None:
    """The window asked for where it is over, or without an index the last one where nothing is open."""
    if asked is not None:
        window = windows.at(session, participant.id, asked)
    elif decisions.at(session, participant.id, participant.decision_index + 1) is None:
        window = windows.last_with_decision(session, participant.id)
    else:
        return None
    if window is None or window.kind == windows.MISSED:
        return None
    return Found(window.decision_index, jobs.of_window(session, window.id).id, is_new=False)


def _close(session: Session, participant: Participant, asked: int | None, now: datetime) -> Found:
    current = participant.decision_index + 1
    decision = decisions.at(session, participant.id, current)
    if asked is not None and (decision is None or asked != current):
        raise Refusal(TrialFault.WINDOW_UNDECIDED)
    if decision is None or participant.phase not in {STARTED, COMPLETED_AWAITING_REVIEW}:
        raise Refusal(TrialFault.WINDOW_PHASE)
    look_back = timedelta(hours=_protocol(session, participant.study_id).schedule.look_back_hours)
    job = windows.close(
        session, participant, windows.ENDED_BY_APP, now, decision.act_gen_timestamp, look_back
    )
    return Found(current, job.id, is_new=True)


def _protocol(session: Session, study_id: int) -> Protocol:
    return serving.loaded(session, studies.protocol(session, studies.by_id(session, study_id)).id)


class WindowQuery(Query):
    """Which windows to list: those of one state, after the last id of the page before."""

    state: Literal["ended", "ingested", "failed", "missed"] | None = None
    after: int = Field(default=0, ge=0, le=2**63 - 1)
    limit: int = Field(default=100, ge=1, le=1000)


class WindowSeen(BaseModel):
    """One closed decision point, by the participant's opaque id."""

    window_id: int
    participant_id: int
    decision_index: int
    kind: str
    state: str
    code: int | None
    ended_at: datetime
    ingested_at: datetime | None


class WindowPage(Reply):
    """Windows by id."""

    windows: list[WindowSeen]


@domain.operation("GET", "/windows", roles={"researcher", "admin"})
def list_windows(query: WindowQuery, caller: Caller) -> WindowPage:
    """Windows and what became of their survey data."""
    found = transact(
        lambda session: windows.listed(session, caller.study_id, query.state, query.after, query.limit)
    )
    return WindowPage(windows=[_seen(window) for window in found])


def _seen(window: Window) -> WindowSeen:
    return WindowSeen(
        window_id=window.id,
        participant_id=window.participant_id,
        decision_index=window.decision_index,
        kind=window.kind,
        state=window.state,
        code=window.code,
        ended_at=window.ended_at,
        ingested_at=window.ingested_at,
    )


class Retried(Reply):
    """The job that tries again."""

    job_id: int
    status_url: str


@domain.operation(
    "POST",
    "/windows/<int:window_id>/retry",
    roles={"admin"},
    status=202,
    faults=(CoreFault.UNKNOWN,),
)
def retry_window(window_id: int, caller: Caller) -> Retried:
    """Fetch the survey data of a failed window again, now."""
    job = transact(lambda session: _retry(session, caller, window_id, datetime.now(UTC)))
    broker.send(jobs.INGEST, job.id)
    return Retried(job_id=job.id, status_url=f"/jobs/{job.id}")


def _retry(session: Session, caller: Caller, window_id: int, now: datetime) -> Job:
    job = windows.retry(session, caller.study_id, window_id, now)
    if job is None:
        raise Refusal(CoreFault.UNKNOWN)
    after = {"window_id": window_id, "job_id": job.id}
    why = "asked for by hand"
    audit.note(session, caller.study_id, caller.client_id, audit.RETRY_WINDOW, why, after=after)
    return job
