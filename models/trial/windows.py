"""Windows: decision points that are over, and whether their survey data has arrived."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core import jobs
from models.core.base import Base, Id, Instant, ParticipantId, StudyId
from models.core.declarations import Export, means
from models.core.jobs import CLOCKS, Job
from models.core.session import Prepared
from models.trial.decisions import COLUMNS, Decision
from models.trial.participants import COMPLETED_AWAITING_REVIEW, ENDED, Participant

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
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.LONG_TABLE
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
    kind: Mapped[str] = mapped_column(
        info=means("how the window ended: by the app, by nobody, or nothing was decided")
    )
    state: Mapped[str] = mapped_column(
        info=means("its survey data: awaited (`ended`), stored, not to be had, or none (`missed`)")
    )
    code: Mapped[int | None] = mapped_column(
        info=means("why the survey data could not be had; see docs/errors.md")
    )
    query_start: Mapped[Instant | None] = mapped_column(
        info=means("begin of the span asked for in the study's back end", "UTC")
    )
    query_end: Mapped[Instant | None] = mapped_column(info=means("end of that span", "UTC"))
    ended_at: Mapped[Instant] = mapped_column(
        info=means("when the window was over, by the server's clock", "UTC")
    )
    ingested_at: Mapped[Instant | None] = mapped_column(info=means("when its survey data were stored", "UTC"))


class Source(NamedTuple):
    """The source of a window's data: the back end, the person and the span, and its failures in a row.

    token: under the keys of the settings, for `encryption.decrypt`.
    """

    window_id: int
    query_start: datetime | None
    query_end: datetime | None
    user_id: str
    url: str
    token: memoryview | None
    failures: int


class Target(NamedTuple):
    """The rows that a window's data is stored with: its decision, and the study it belongs to.

    decision: of no session. reports: how many the decision has already. zone: the time zone of naive times.
    protocol_id: the protocol version in force.
    """

    decision: Decision
    reports: int
    zone: str
    protocol_id: int


class ClaimedIngest(NamedTuple):
    """A claimed ingest: its job, of no session, the source it asks and the target of the answer."""

    job: Job
    source: Source
    target: Target


# An ingest runs each of these: through the driver, they cost it a third of their cost by the ORM
SETTLE = Prepared("settle_window", "UPDATE windows SET state = $2, code = $3, ingested_at = $4 WHERE id = $1")
CLAIMED = ("id", "study_id", "kind", "window_id", "attempts", "tries", "run_after", "claimed_at", "code")
# in the order of Target
TARGET_COLUMNS = f"""
{", ".join(f"d.{name}" for name in COLUMNS)},
(SELECT count(*) FROM answers a WHERE a.decision_id = d.id), s.ema_timezone, v.id
"""
TARGET_JOINS = """
JOIN studies s ON s.id = w.study_id
JOIN protocols v ON v.study_id = s.id AND v.version = s.protocol_version
LEFT JOIN decisions d ON d.participant_id = w.participant_id AND d.decision_index = w.decision_index
"""
# its columns: Target, Job as far as claimed, Source, each in its order
CLAIM = Prepared(
    "claim_ingest",
    f"""
WITH job AS (
    UPDATE jobs SET state = 'running', attempts = attempts + 1, tries = tries + 1, claimed_at = $2
    WHERE id = $1 AND kind = 'ingest' AND state = 'queued' AND run_after <= $3
    RETURNING {", ".join(CLAIMED)})
SELECT {TARGET_COLUMNS}, job.*,
    w.id, w.query_start, w.query_end, p.user_id, s.ema_url, s.ema_token, coalesce(c.failures, 0)
FROM job
JOIN windows w ON w.id = job.window_id
JOIN participants p ON p.id = w.participant_id
{TARGET_JOINS}
LEFT JOIN circuits c ON c.study_id = s.id
""",
)
TARGET_WIDTH = len(COLUMNS) + len(Target._fields) - 1
TARGET = Prepared(
    "target_of_window", f"SELECT {TARGET_COLUMNS} FROM windows w {TARGET_JOINS} WHERE w.id = $1"
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
    query_start: datetime,
) -> Job:
    """End the open window of a locked participant, and queue its ingest from `query_start` on.

    The index advances; after the last window the participant has ended. Return the ingest's job.
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
        query_start=query_start,
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
    """Write down how the ingest of a window came out, at the latest with COMMIT."""
    SETTLE.later(session, (window_id, state, code, now))


def claim(session: Session, job_id: int, now: datetime) -> ClaimedIngest | None:
    """Take a queued ingest that is due; None where it is not due."""
    row = CLAIM.row(session, (job_id, now, now + CLOCKS))
    if row is None:
        return None
    job_end = TARGET_WIDTH + len(CLAIMED)
    job = Job(**dict(zip(CLAIMED, row[TARGET_WIDTH:job_end], strict=True)))
    return ClaimedIngest(job, Source(*row[job_end:]), _target(row[:TARGET_WIDTH]))


def target(session: Session, window_id: int) -> Target:
    """Return the target of a window's data as it is now. Raises LookupError."""
    row = TARGET.row(session, (window_id,))
    if row is None:
        raise LookupError(f"there is no window {window_id}")
    return _target(row)


def _target(row: tuple[Any, ...]) -> Target:
    decision = Decision(**dict(zip(COLUMNS, row[: len(COLUMNS)], strict=True)))
    return Target(decision, *row[len(COLUMNS) :])


def stale(session: Session, study_id: int, before: datetime, limit: int) -> list[int]:
    """Return the ids of the study's participants whose open decision was generated before `before`."""
    open_decision = (Decision.participant_id == Participant.id) & (
        Decision.decision_index == Participant.decision_index + 1
    )
    return list(
        session.scalars(
            select(Participant.id)
            .join(Decision, open_decision)
            .where(Participant.study_id == study_id, Decision.act_gen_timestamp < before)
            .order_by(Participant.id)
            .limit(limit)
        )
    )


def counts(session: Session, study_id: int) -> dict[str, int]:
    """Return the number of windows in each state."""
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
    """Queue the ingest of a window again where it had failed; return its job, or None where there is none."""
    window = session.get(Window, window_id)
    if window is None or window.study_id != study_id or window.kind == MISSED:
        return None
    job = jobs.of_window(session, window_id)
    if job.state == jobs.FAILED:
        jobs.revive(job, now)
        window.state = AWAITED
        session.flush()
    return job
