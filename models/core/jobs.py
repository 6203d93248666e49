"""Jobs: work that must be done outside a request. The row is the truth; a message only carries its id.

A job is claimed by a conditional UPDATE. `attempts` and `claimed_at` are the fence: a worker that was thought
dead, so that its job was put back, cannot finish what somebody else has claimed since.
"""

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Id, Instant, StudyId
from models.core.declarations import Export, means
from models.core.session import Prepared

OWN_FAULT = 321  # the code of a job that failed, or waits, by the service's own fault
INGEST = "ingest"
REFIT = "refit"
NIGHT = "night"
QUEUED = "queued"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
CLOCKS = timedelta(seconds=5)
"""How far the claimer's clock may be behind the sender's, without the message of a job being in vain."""
LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Job(Base):
    """One piece of work of a study. `attempts` and `claimed_at` are the fence; `tries` is bounded."""

    __tablename__ = "jobs"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.ROWS
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="state"),
        Index(
            "ix_jobs_unfinished",
            "state",
            "run_after",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "uq_jobs_queued_refit",
            "study_id",
            unique=True,
            postgresql_where=text("kind = 'refit' AND state = 'queued'"),
        ),
        Index(
            "uq_jobs_running_refit",
            "study_id",
            unique=True,
            postgresql_where=text("kind = 'refit' AND state = 'running'"),
        ),
        Index("uq_jobs_window_id", "window_id", unique=True, postgresql_where=text("window_id IS NOT NULL")),
        Index("ix_jobs_study_id_state", "study_id", "state"),
        Index("ix_jobs_fits", "study_id", "finished_at", postgresql_where=text("kind = 'refit'")),
    )

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    kind: Mapped[str] = mapped_column(info=means("kind of work", range="ingest, refit, night, export"))
    state: Mapped[str] = mapped_column(server_default=QUEUED, info=means("how far it is"))
    window_id: Mapped[int | None] = mapped_column(
        BigInteger, ForeignKey("windows.id"), info=means("the window whose survey data it fetches")
    )
    hyperparameters: Mapped[bool] = mapped_column(
        server_default="false", info=means("whether a fit was to find hyper-parameters too")
    )
    requests: Mapped[int] = mapped_column(
        server_default="1", info=means("how many requests it does the work of", range=">= 1")
    )
    attempts: Mapped[int] = mapped_column(
        server_default="0", info=means("how often it was claimed", range=">= 0")
    )
    tries: Mapped[int] = mapped_column(
        server_default="0", info=means("claims since it was last queued by hand", range=">= 0")
    )
    run_after: Mapped[Instant] = mapped_column(info=means("not before", "UTC"))
    sent_at: Mapped[Instant] = mapped_column(info=means("when its id last went to the broker", "UTC"))
    claimed_at: Mapped[Instant | None] = mapped_column(info=means("when it was last claimed", "UTC"))
    finished_at: Mapped[Instant | None] = mapped_column(info=means("when it was done or failed", "UTC"))
    code: Mapped[int | None] = mapped_column(info=means("why it failed or waits; see docs/errors.md"))
    reason: Mapped[str | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB, info=means("what came of it"))
    created_at: Mapped[CreatedAt]


FINISH = Prepared(
    "finish_job",
    """
UPDATE jobs SET state = 'done', finished_at = $3, code = NULL, reason = NULL, result = $4
WHERE id = $1 AND state = 'running' AND attempts = $2 AND claimed_at = $5 RETURNING id
""",
)
CLAIM = text("""
UPDATE jobs SET state = 'running', attempts = attempts + 1, tries = tries + 1, claimed_at = :now
WHERE id = :job_id AND state = 'queued' AND run_after <= :latest
  AND (kind <> 'refit' OR NOT EXISTS (
      SELECT FROM jobs other
      WHERE other.study_id = jobs.study_id AND other.kind = 'refit' AND other.state = 'running'))
RETURNING *
""")
CLAIMED = select(Job).from_statement(CLAIM).execution_options(populate_existing=True)


class QueuedJob(NamedTuple):
    """A job whose id is to be sent to the broker once the transaction that queued it has committed."""

    kind: str
    job_id: int


class LostClaim(Exception):
    """The job was put back and belongs to another worker: nothing of this attempt may be written."""


def add_ingest(session: Session, study_id: int, window_id: int, now: datetime) -> Job:
    """Queue the ingest of a window."""
    job = Job(study_id=study_id, kind=INGEST, window_id=window_id, run_after=now, sent_at=now)
    session.add(job)
    session.flush()
    return job


def add_night(session: Session, study_id: int, now: datetime) -> Job:
    """Queue what a study needs once a night."""
    job = Job(study_id=study_id, kind=NIGHT, run_after=now, sent_at=now)
    session.add(job)
    session.flush()
    return job


def of_window(session: Session, window_id: int) -> Job:
    """Return the ingest job of a window."""
    return session.scalars(select(Job).where(Job.window_id == window_id)).one()


def claim(session: Session, job_id: int, now: datetime) -> Job | None:
    """Take a queued job that is due; None where it is not, or where its study already has a fit running."""
    parameters = {"job_id": job_id, "now": now, "latest": now + CLOCKS}
    return session.scalars(CLAIMED, parameters).one_or_none()


def _leave(session: Session, job: Job, **columns: Any) -> None:
    """Write `columns` of a claimed job. Raises LostClaim."""
    job_id = session.scalar(
        update(Job)
        .where(
            Job.id == job.id,
            Job.state == RUNNING,
            Job.attempts == job.attempts,
            Job.claimed_at == job.claimed_at,  # two claims have one number where a crash took the first one
        )
        .values(**columns)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    _check(job, job_id)


def _check(job: Job, updated: Any) -> None:
    if updated is None:
        raise LostClaim(f"job {job.id} was put back after attempt {job.attempts}")


def hold(session: Session, job: Job) -> None:
    """Keep the claimed job from being put back before the transaction ends. Raises LostClaim."""
    _leave(session, job, state=RUNNING)


def go_on(session: Session, job: Job, now: datetime, **columns: Any) -> None:
    """Let the claim of a long job live on from `now`; the fence goes with it. Raises LostClaim."""
    _leave(session, job, state=RUNNING, claimed_at=now, **columns)
    job.claimed_at = now


def finish(session: Session, job: Job, now: datetime, result: dict[str, Any] | None = None) -> None:
    """Write down that the claimed job is done. Raises LostClaim."""
    result_text = None if result is None else json.dumps(result)
    _check(job, FINISH.row(session, (job.id, job.attempts, now, result_text, job.claimed_at)))


def fail(
    session: Session, job: Job, now: datetime, code: int | None, reason: str, again: datetime | None = None
) -> None:
    """Write down that the claimed job failed; the sweep wakes it up at `again`. Raises LostClaim."""
    _leave(
        session,
        job,
        state=FAILED,
        finished_at=now,
        code=code,
        reason=reason,
        run_after=again or job.run_after,
    )


def postpone(session: Session, job: Job, run_after: datetime, code: int, reason: str) -> None:
    """Put the claimed job back for a later try; the sweep sends it when it is due. Raises LostClaim."""
    _wait(session, job, run_after, job.tries, code, reason)


def release(
    session: Session, job: Job, run_after: datetime, code: int | None = None, reason: str | None = None
) -> None:
    """Give the claimed job back as it was: this try does not count. Raises LostClaim."""
    _wait(session, job, run_after, job.tries - 1, code, reason)


def _wait(
    session: Session, job: Job, run_after: datetime, tries: int, code: int | None, reason: str | None
) -> None:
    queued = queued_refit(session, job.study_id) if job.kind == REFIT else None
    if queued is None:
        columns = {"run_after": run_after, "tries": tries, "code": code, "reason": reason}
        _leave(session, job, state=QUEUED, sent_at=LONG_AGO, **columns)
        return
    join(queued, job, tries, run_after)
    queued.code, queued.reason = code, reason
    _leave(session, job, state=DONE, finished_at=func.now(), result={"continued_by": queued.id})


def join(queued: Job, job: Job, tries: int, run_after: datetime) -> None:
    """Let the queued refit do the work of `job` too, which was to go on at `run_after`: at most one waits.

    It has the other one's tries behind it, or requests that keep coming would hide a poison.
    """
    queued.run_after, queued.sent_at = run_after, LONG_AGO
    queued.hyperparameters = queued.hyperparameters or job.hyperparameters
    queued.tries, queued.attempts = max(queued.tries, tries), max(queued.attempts, job.attempts)


def due(session: Session, kind: str, now: datetime, sent_before: datetime, limit: int) -> list[int]:
    """Return the ids of queued jobs that are due and were not sent since; they count as sent from now on.

    Studies take turns, each with what waits longest: one study's jobs, however many, do not keep another's.
    """
    turn = func.row_number().over(partition_by=Job.study_id, order_by=(Job.run_after, Job.id)).label("turn")
    turns = (
        select(Job.id, turn)
        .where(Job.state == QUEUED, Job.run_after <= now, Job.sent_at <= sent_before, Job.kind == kind)
        .subquery()
    )
    waiting = (
        select(Job.id)
        .join(turns, turns.c.id == Job.id)
        .order_by(turns.c.turn, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
    )
    sent = update(Job).where(Job.id.in_(waiting)).values(sent_at=now).returning(Job.id)
    return list(session.scalars(sent))


def queued_refit(session: Session, study_id: int) -> Job | None:
    """Return the refit that waits in the study, or None."""
    return session.scalars(
        select(Job).where(Job.study_id == study_id, Job.kind == REFIT, Job.state == QUEUED)
    ).one_or_none()


def of_study(session: Session, study_id: int, job_id: int) -> Job | None:
    """Return job `job_id` where it is the study's, or None."""
    return session.scalars(select(Job).where(Job.study_id == study_id, Job.id == job_id)).one_or_none()


def counts(session: Session, study_id: int) -> dict[str, int]:
    """Return the number of jobs in each state."""
    query = select(Job.state, func.count()).where(Job.study_id == study_id).group_by(Job.state)
    return dict(session.execute(query).all())


def revive(job: Job, now: datetime) -> None:
    """Queue a failed job again with all its tries before it."""
    job.state, job.tries, job.run_after, job.sent_at, job.finished_at = QUEUED, 0, now, now, None


def wake(session: Session, now: datetime, kind: str, tries: int) -> None:
    """Queue failed jobs of a kind again whose time for another try has come, up to so many tries in all."""
    session.execute(
        update(Job)
        .where(Job.kind == kind, Job.state == FAILED, Job.run_after <= now, Job.tries < tries)
        .where(Job.run_after > Job.finished_at)
        .values(state=QUEUED, sent_at=LONG_AGO, finished_at=None)
    )
