"""Windows: decision points that are over, and whether their survey data has arrived."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, bindparam, func, select, text
from sqlalchemy.orm import Mapped, Session

from models import jobs
from models.base import Base, Id, Instant, ParticipantId, StudyId
from models.circuits import Circuit
from models.decisions import Decision
from models.jobs import Job
from models.participants import COMPLETED_AWAITING_REVIEW, ENDED, Participant
from models.studies import ProtocolVersion, Study

ENDED_BY_APP = "ended"
END_MISSING = "end_missing"
MISSED = "missed"

AWAITED = "ended"
INGESTED = "ingested"
FAILED = "failed"


class Window(Base):
    """One decision point that is over.

    kind: `ended` by the app, `end_missing` where nobody ended it, `missed` where nothing was decided.
    state: `ended` until its survey data is stored (`ingested`) or could not be had (`failed`, with its code).
    query_start, query_end: the span asked for in the study's back end, the same at every try.
    """

    __tablename__ = "windows"
    __table_args__ = (
        UniqueConstraint("participant_id", "decision_index"),
        CheckConstraint("kind IN ('ended', 'end_missing', 'missed')", name="kind"),
        CheckConstraint("state IN ('ended', 'ingested', 'failed', 'missed')", name="state"),
        Index("ix_windows_study_id_state", "study_id", "state"),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    participant_id: Mapped[ParticipantId]
    decision_index: Mapped[int]
    kind: Mapped[str]
    state: Mapped[str]
    code: Mapped[int | None]
    query_start: Mapped[Instant | None]
    query_end: Mapped[Instant | None]
    ended_at: Mapped[Instant]
    ingested_at: Mapped[Instant | None]


class Source(NamedTuple):
    """A window, where and for whom to ask for its data, and the circuit of the study's back end."""

    window_id: int
    query_start: datetime | None
    query_end: datetime | None
    user_id: str
    url: str
    token: bytes | None
    circuit: Circuit | None


class Target(NamedTuple):
    """The decision of a window, its study, and which protocol version is in force."""

    decision: Decision
    study: Study
    protocol_id: int


# Built once: an ingest runs each of them
SETTLE = text("UPDATE windows SET state = :state, code = :code, ingested_at = :now WHERE id = :window_id")
SOURCE = (
    select(
        Window.id,
        Window.query_start,
        Window.query_end,
        Participant.user_id,
        Study.ema_url,
        Study.ema_token,
        Circuit,
    )
    .join(Participant, Participant.id == Window.participant_id)
    .join(Study, Study.id == Window.study_id)
    .outerjoin(Circuit, Circuit.study_id == Study.id)
    .where(Window.id == bindparam("window_id"))
)
TARGET = (
    select(Decision, Study, ProtocolVersion.id)
    .join(
        Window,
        (Window.participant_id == Decision.participant_id)
        & (Window.decision_index == Decision.decision_index),
    )
    .join(Study, Study.id == Window.study_id)
    .join(
        ProtocolVersion,
        (ProtocolVersion.study_id == Study.id) & (ProtocolVersion.version == Study.protocol_version),
    )
    .where(Window.id == bindparam("window_id"))
)


def at(session: Session, participant_id: int, decision_index: int) -> Window | None:
    """The closed window of a participant at an index, or None."""
    return session.scalars(
        select(Window).where(Window.participant_id == participant_id, Window.decision_index == decision_index)
    ).one_or_none()


def of_participant(session: Session, participant_id: int) -> list[Window]:
    """All closed windows of a participant, in their order."""
    return list(
        session.scalars(
            select(Window).where(Window.participant_id == participant_id).order_by(Window.decision_index)
        )
    )


def close(
    session: Session,
    participant: Participant,
    kind: str,
    now: datetime,
    decided_at: datetime,
    look_back: timedelta,
) -> Job:
    """End the open window of a locked participant and queue its ingest; return that job.

    The index advances; after the last window the participant has ended.
    """
    participant.decision_index += 1
    if participant.phase == COMPLETED_AWAITING_REVIEW:
        participant.phase = ENDED
    window = Window(
        study_id=participant.study_id,
        participant_id=participant.id,
        decision_index=participant.decision_index,
        kind=kind,
        state=AWAITED,
        query_start=decided_at - look_back,
        query_end=now,
        ended_at=now,
    )
    session.add(window)
    session.flush()
    return jobs.add_ingest(session, participant.study_id, window.id, now)


def miss(session: Session, participant: Participant, upto: int, now: datetime) -> None:
    """Record the points of a locked participant up to index `upto` as missed: nothing was decided there."""
    for index in range(participant.decision_index + 1, upto + 1):
        session.add(
            Window(
                study_id=participant.study_id,
                participant_id=participant.id,
                decision_index=index,
                kind=MISSED,
                state=MISSED,
                ended_at=now,
            )
        )
    participant.decision_index = max(participant.decision_index, upto)
    session.flush()


def settle(session: Session, window_id: int, state: str, code: int | None, now: datetime | None) -> None:
    """Write down how the ingest of a window came out."""
    session.execute(SETTLE, {"window_id": window_id, "state": state, "code": code, "now": now})


def source(session: Session, window_id: int) -> Source:
    """A window and whom to ask for its data."""
    return Source(*session.execute(SOURCE, {"window_id": window_id}).one())


def target(session: Session, window_id: int) -> Target:
    """What the data of a window is stored with."""
    return Target(*session.execute(TARGET, {"window_id": window_id}).one())


def stale(session: Session, study: Study, before: datetime, limit: int) -> list[int]:
    """Ids of participants of the study whose open decision was generated before `before`."""
    open_decision = (Decision.participant_id == Participant.id) & (
        Decision.decision_index == Participant.decision_index + 1
    )
    return list(
        session.scalars(
            select(Participant.id)
            .join(Decision, open_decision)
            .where(Participant.study_id == study.id, Decision.act_gen_timestamp < before)
            .order_by(Participant.id)
            .limit(limit)
        )
    )


def counts(session: Session, study_id: int) -> dict[str, int]:
    """How many windows are in each state."""
    rows = session.execute(
        select(Window.state, func.count()).where(Window.study_id == study_id).group_by(Window.state)
    )
    return dict(rows.all())


def listed(session: Session, study_id: int, state: str | None, after: int, limit: int) -> list[Window]:
    """Windows of the study by id, from the one after `after`."""
    query = select(Window).where(Window.study_id == study_id, Window.id > after)
    if state:
        query = query.where(Window.state == state)
    return list(session.scalars(query.order_by(Window.id).limit(limit)))


def last_with_decision(session: Session, participant_id: int) -> Window | None:
    """The participant's latest window that had a decision, or None."""
    return session.scalars(
        select(Window)
        .where(Window.participant_id == participant_id, Window.kind != MISSED)
        .order_by(Window.decision_index.desc())
        .limit(1)
    ).one_or_none()


def retry(session: Session, study_id: int, window_id: int, now: datetime) -> Job | None:
    """Queue the ingest of a window again where it had failed; its job, or None where there is none."""
    window = session.get(Window, window_id)
    if window is None or window.study_id != study_id or window.kind == MISSED:
        return None
    job = jobs.of_window(session, window_id)
    if job.state == jobs.FAILED:
        jobs.revive(job, now)
        window.state = AWAITED
        session.flush()
    return job
