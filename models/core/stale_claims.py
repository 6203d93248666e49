"""Claims of workers that are dead, whose locks nobody holds, and of those that live and hang."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, column, exists, func, select, table
from sqlalchemy.orm import Session

from models.core import locks
from models.core.jobs import DONE, FAILED, INGEST, LONG_AGO, QUEUED, REFIT, RUNNING, Job, join, queued_refit

PgLocks = table("pg_locks", *map(column, ("locktype", "database", "classid", "objid", "objsubid", "pid")))
PgDatabase = table("pg_database", *map(column, ("oid", "datname")))
PgActivity = table("pg_stat_activity", *map(column, ("pid", "usename")))
HERE = select(PgDatabase.c.oid).where(PgDatabase.c.datname == func.current_database()).scalar_subquery()
KEY = (PgLocks.c.classid.cast(BigInteger).op("<<")(32)).op("|")(PgLocks.c.objid.cast(BigInteger))
TO_END = 1000  # milliseconds, for a session


def put_back(
    session: Session,
    now: datetime,
    limit: timedelta,
    tries: Callable[[Job], int],
    slow: timedelta,
    reason: str,
) -> list[Job]:
    """Free the claims of dead workers, and of those that take longer than `limit`, whose locks end with it.

    They are queued again, or failed after as many tries as the job may have. An ingest that had failed or
    been given back before wakes again after `slow`.
    """
    held = exists().where(_is_lock_of(Job.id))
    dead = select(Job.id).where(Job.state == RUNNING, (Job.claimed_at < now - limit) | ~held)
    expired = session.scalars(select(Job).where(Job.id.in_(dead)).with_for_update(skip_locked=True)).all()
    for job in expired:
        _let_go(session, job)
        if job.tries >= tries(job):
            job.state, job.finished_at, job.reason = FAILED, now, reason
            if job.kind == INGEST and job.code is not None:  # not all of its tries were deaths
                job.run_after = now + slow
            continue
        queued = queued_refit(session, job.study_id) if job.kind == REFIT else None
        if queued is not None:  # at most one refit waits in a study
            join(queued, job, job.tries, now)
            job.state, job.finished_at, job.result = DONE, now, {"continued_by": queued.id}
        else:
            job.state, job.run_after, job.sent_at = QUEUED, now, LONG_AGO
    session.flush()
    return list(expired)


def _is_lock_of(job_id: Any) -> ColumnElement[bool]:
    """The rows of pg_locks, which are those of the whole server, that are a job's of this database."""
    return and_(
        PgLocks.c.locktype == "advisory",
        PgLocks.c.database == HERE,
        PgLocks.c.objsubid == 1,
        job_id + locks.JOBS == KEY,
    )


def _let_go(session: Session, job: Job) -> None:
    """End the session that holds the job's lock: nobody else could take the job while a worker hangs.

    The worker, should it go on, finds that its claim is lost. Before the claim is free, so that the lock is
    that worker's and not the next one's. A session of another role is not ours to end.
    """
    holder = PgLocks.join(PgActivity, PgActivity.c.pid == PgLocks.c.pid)
    session.execute(
        select(func.pg_terminate_backend(PgLocks.c.pid, TO_END))
        .select_from(holder)
        .where(_is_lock_of(job.id))
        .where(PgActivity.c.usename == func.current_user())
    )
