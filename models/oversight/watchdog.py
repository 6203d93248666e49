"""The numbers and times that the watchdog looks at in a study: one per query, each by an index.

The indexes stand here because only these queries need them. That of decisions is a BRIN index, which costs
the insertion of a decision next to nothing.
"""

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Index, exists, func, select, text
from sqlalchemy.orm import Session

from models.core import jobs
from models.core.audit import AuditEntry
from models.core.jobs import DONE, INGEST, QUEUED, REFIT, RUNNING, Job
from models.oversight.acts import OversightAct
from models.trial.decisions import Decision
from models.trial.learning_rows import Row
from models.trial.participants import REGISTERED, STARTED, WITHDRAWN, Participant
from models.trial.windows import AWAITED, END_MISSING, FAILED, Window

Index("ix_decisions_act_gen_timestamp", Decision.act_gen_timestamp, postgresql_using="brin")
Index(
    "ix_windows_end_missing",
    Window.study_id,
    Window.ended_at,
    postgresql_where=text("kind = 'end_missing'"),
)
Index("ix_jobs_refits", Job.study_id, Job.claimed_at, postgresql_where=text("kind = 'refit'"))


class Age(NamedTuple):
    """The number of things that wait, and since when the oldest does (None where none waits)."""

    number: int
    oldest: datetime | None


class Recent(NamedTuple):
    """Randomised decisions of a span of time: all, those of a fallback, those with act_prob at a bound."""

    decisions: int
    fallbacks: int
    at_bound: int


def expected(session: Session, study_id: int, since: datetime, now: datetime) -> int:
    """Return how many participants were by their dates in the trial all the time, with points to come.

    Their days begin as at decisions: the server may know other time zones than this program.
    """
    kinds = (Participant.timezone, Participant.rl_start_date, Participant.rl_end_date)
    groups = session.execute(
        select(*kinds, func.count())
        .where(Participant.study_id == study_id, Participant.phase.in_((REGISTERED, STARTED)))
        .where(Participant.created_at < since)
        .group_by(*kinds)
    )
    return sum(
        number
        for zone, first, last, number in groups
        if first <= since.astimezone(ZoneInfo(zone)).date() and now.astimezone(ZoneInfo(zone)).date() <= last
    )


def last_decision(session: Session, study_id: int) -> datetime | None:
    """Return when the study's last decision was made, or None."""
    return session.scalar(
        select(Decision.act_gen_timestamp)
        .where(Decision.study_id == study_id)
        .order_by(Decision.id.desc())
        .limit(1)
    )


def last_resumed(session: Session, study_id: int) -> datetime | None:
    """Return when a pause of the study last ended, or None."""
    resumed = AuditEntry.act == OversightAct.RESUME
    return session.scalar(
        select(func.max(AuditEntry.created_at)).where(AuditEntry.study_id == study_id, resumed)
    )


def open_windows(session: Session, study_id: int, before: datetime) -> Age:
    """Return the number and age of the open decisions that were generated before `before`."""
    open_decision = (Decision.participant_id == Participant.id) & (
        Decision.decision_index == Participant.decision_index + 1
    )
    return Age(
        *session.execute(
            select(func.count(), func.min(Decision.act_gen_timestamp))
            .select_from(Participant)
            .join(Decision, open_decision)
            .where(Participant.study_id == study_id, Decision.act_gen_timestamp < before)
        ).one()
    )


def closed_for_the_app(session: Session, study_id: int, since: datetime) -> Age:
    """Return the number and age of the windows that no app ended, but for participants who were withdrawn."""
    return Age(
        *session.execute(
            select(func.count(), func.min(Window.ended_at))
            .join(Participant, Participant.id == Window.participant_id)
            .where(Window.study_id == study_id, Window.kind == END_MISSING, Window.ended_at >= since)
            .where(Participant.phase != WITHDRAWN)
        ).one()
    )


def awaited(session: Session, study_id: int, before: datetime) -> Age:
    """Return the number and age of windows that ended before `before` and whose data has not come."""
    return Age(
        *session.execute(
            select(func.count(), func.min(Window.ended_at)).where(
                Window.study_id == study_id, Window.state == AWAITED, Window.ended_at < before
            )
        ).one()
    )


def failed(session: Session, study_id: int, since: datetime | None) -> int:
    """Return how many windows that ended since `since` (None: ever) failed: their data could not be had."""
    count = select(func.count()).where(Window.study_id == study_id, Window.state == FAILED)
    return session.scalar(count if since is None else count.where(Window.ended_at >= since)) or 0


def will_ask(session: Session, study_id: int, slow_tries: int) -> bool:
    """Return whether an ingest of the study is to ask its back end, now or when it wakes by itself.

    slow_tries: the most tries of one that wakes by itself.
    """
    wakes = (Job.state == jobs.FAILED) & (Job.tries < slow_tries) & (Job.run_after > Job.finished_at)
    asks = Job.state.in_((QUEUED, RUNNING)) | wakes
    query = select(exists().where(Job.study_id == study_id, Job.kind == INGEST, asks))
    return session.scalar(query) or False


def last_fit(session: Session, study_id: int) -> datetime | None:
    """Return when the last refit that came to its end began, or None.

    A refit whose worker died, and that another refit goes on with, did not.
    """
    is_dead = Job.result.has_key("continued_by")
    return session.scalar(
        select(func.max(Job.claimed_at))
        .where(Job.study_id == study_id, Job.kind == REFIT, Job.state == DONE)
        .where(Job.result.is_(None) | ~is_dead)
    )


def pairs_since(session: Session, study_id: int, since: datetime, before: datetime) -> Age:
    """Return the number and age of a span's decisions that report an outcome: all but participants' first."""
    return Age(
        *session.execute(
            select(func.count(), func.min(Decision.act_gen_timestamp))
            .where(Decision.study_id == study_id, Decision.decision_index > 1)
            .where(Decision.act_gen_timestamp >= since, Decision.act_gen_timestamp < before)
        ).one()
    )


def last_row(session: Session, study_id: int) -> datetime | None:
    """Return when the study's last learning row was collected, or None."""
    return session.scalar(
        select(Row.created_at).where(Row.study_id == study_id).order_by(Row.row_seq.desc()).limit(1)
    )


def queue(session: Session, study_id: int, now: datetime) -> Age:
    """Return the number and age of the study's queued jobs that are due."""
    return Age(
        *session.execute(
            select(func.count(), func.min(Job.run_after)).where(
                Job.study_id == study_id, Job.state == QUEUED, Job.run_after <= now
            )
        ).one()
    )


def recent(session: Session, study_id: int, since: datetime, lower: float, upper: float) -> Recent:
    """Return the counts since `since`; at a bound is a policy's decision up to `lower` or from `upper` on."""
    is_fallback = Decision.fallback_level != "F0"
    is_at_bound = (Decision.act_prob <= lower) | (Decision.act_prob >= upper)
    return Recent(
        *session.execute(
            select(
                func.count(),
                func.count().filter(is_fallback),
                func.count().filter(is_at_bound, Decision.policy_id.is_not(None)),
            ).where(Decision.study_id == study_id, Decision.act_gen_timestamp >= since, Decision.available)
        ).one()
    )
