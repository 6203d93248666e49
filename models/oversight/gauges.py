"""The numbers of /metrics, over all studies: one query each, which an index answers or a small table.

Windows and jobs are counted by state out of an index alone; only those that are not done are read.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Row, func, select, text, true
from sqlalchemy.orm import Session

from models.core.jobs import INGEST, REFIT, Job
from models.core.studies import Study
from models.oversight.incidents import Incident
from models.oversight.notifications import FAILED as GIVEN_UP
from models.oversight.notifications import Notification
from models.trial.circuits import Circuit
from models.trial.decisions import Decision
from models.trial.policies import Policy
from models.trial.windows import FAILED, Window


class Waiting(NamedTuple):
    """Queued jobs of a kind that are due, and since when the oldest is."""

    kind: str
    number: int
    oldest: datetime


class Refit(NamedTuple):
    """A study's last refit that came to its end: done, or failed, as one that was refused is."""

    study_id: int
    state: str
    seconds: float


class Serving(NamedTuple):
    """The policy that serves a study: when it was made, how long its fit took, its log evidence."""

    study_id: int
    created_at: datetime
    rows: int
    fit_seconds: float | None
    log_evidence: float | None


def jobs(session: Session) -> list[Row[int, str, int]]:
    """(study, state, number) of jobs."""
    return list(
        session.execute(select(Job.study_id, Job.state, func.count()).group_by(Job.study_id, Job.state)).all()
    )


def waiting(session: Session, now: datetime) -> list[Waiting]:
    """Return the queues as the database has them, by kind of job."""
    rows = session.execute(
        select(Job.kind, func.count(), func.min(Job.run_after))
        .where(text("state = 'queued'"), Job.run_after <= now)
        .group_by(Job.kind)
    )
    return [Waiting(*row) for row in rows]


def windows(session: Session) -> list[Row[int, str, int]]:
    """(study, state, number) of windows."""
    return list(
        session.execute(
            select(Window.study_id, Window.state, func.count()).group_by(Window.study_id, Window.state)
        ).all()
    )


def failures(session: Session) -> list[Row[int, int | None, int]]:
    """(study, code, number) of windows whose survey data could not be had."""
    return list(
        session.execute(
            select(Window.study_id, Window.code, func.count())
            .where(Window.state == FAILED)
            .group_by(Window.study_id, Window.code)
        ).all()
    )


def retries(session: Session) -> list[Row[int, int | None, int]]:
    """(study, code, number) of ingests that wait for another try, by the code of the one before."""
    return list(
        session.execute(
            select(Job.study_id, Job.code, func.count())
            .where(text("state IN ('queued', 'running')"), Job.kind == INGEST, Job.code.is_not(None))
            .group_by(Job.study_id, Job.code)
        ).all()
    )


def refits(session: Session) -> list[Refit]:
    """Return the last refit of every study that came to its end.

    A refit whose worker died, and that another refit goes on with, did not.
    """
    is_continued = func.coalesce(Job.result.has_key("continued_by"), False)
    last = (
        select(Job.state, (Job.finished_at - Job.claimed_at).label("duration"))
        .where(Job.study_id == Study.id, Job.kind == REFIT, Job.finished_at.is_not(None), ~is_continued)
        .order_by(Job.finished_at.desc())
        .limit(1)
        .lateral()
    )
    rows = session.execute(select(Study.id, last.c.state, last.c.duration).join(last, true()))
    return [Refit(study_id, state, duration.total_seconds()) for study_id, state, duration in rows]


def serving(session: Session) -> list[Serving]:
    """Return the serving policy of every study."""
    policies = session.execute(
        select(Policy.study_id, Policy.created_at, Policy.row_count, Policy.report).join(
            Study, (Study.id == Policy.study_id) & (Study.policy_id == Policy.policy_id)
        )
    )
    return [
        Serving(study_id, created_at, row_count, report.get("fit_seconds"), report.get("log_evidence"))
        for study_id, created_at, row_count, report in policies
    ]


def decisions(session: Session, since: datetime) -> list[Row[int, str, int]]:
    """(study, fallback level, number) of randomised decisions since `since`."""
    return list(
        session.execute(
            select(Decision.study_id, Decision.fallback_level, func.count())
            .where(Decision.act_gen_timestamp >= since, Decision.available)
            .group_by(Decision.study_id, Decision.fallback_level)
        ).all()
    )


def circuits(session: Session) -> list[Row[int, str]]:
    """(study, state) of every circuit."""
    return list(session.execute(select(Circuit.study_id, Circuit.state)).all())


def incidents(session: Session) -> list[Row[int | None, str, str]]:
    """(study or None, kind, level) of every open incident."""
    return list(
        session.execute(
            select(Incident.study_id, Incident.kind, Incident.level).where(Incident.resolved_at.is_(None))
        ).all()
    )


def notifications(session: Session) -> list[Row[str, str, int]]:
    """(channel, state, number) of notifications."""
    return list(
        session.execute(
            select(Notification.channel, Notification.state, func.count()).group_by(
                Notification.channel, Notification.state
            )
        ).all()
    )


def given_up(session: Session, since: datetime) -> list[Row[str, int]]:
    """(channel, number) of notifications that nobody tries to deliver any more since `since`."""
    return list(
        session.execute(
            select(Notification.channel, func.count())
            .where(Notification.state == GIVEN_UP, Notification.finished_at >= since)
            .group_by(Notification.channel)
        ).all()
    )
