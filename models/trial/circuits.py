"""Circuits: whether a study's back end is asked at present, or left in peace after too many failures."""

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, case, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base
from models.core.declarations import Export, means
from models.core.jobs import QUEUED, Job

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half_open"
REASON = "the circuit is open"  # of jobs that were put off
NONE = timedelta()
LOOK_AGAIN = timedelta(seconds=15)
PROBE = timedelta(minutes=2)  # for the answer to the one job that asks


class Circuit(Base):
    """The circuit of a study: closed while its back end is asked, open until `retry_at`, then half open.

    Half open: one job asks, and the others wait until `retry_at` for what it finds.
    """

    __tablename__ = "circuits"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.WITHHELD  # of the deployment
    __table_args__ = (CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),)

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("studies.id"), primary_key=True)
    state: Mapped[str] = mapped_column(
        server_default=CLOSED, info=means("whether the study's back end is asked at present")
    )
    failures: Mapped[int] = mapped_column(
        server_default="0", info=means("how many times in a row it did not answer", range=">= 0")
    )
    opened_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), info=means("since when it is left in peace; null: it is not", "UTC")
    )
    retry_at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), info=means("until when it is left in peace, or its answer awaited", "UTC")
    )


def of_study(session: Session, study_id: int) -> Circuit | None:
    """The circuit of a study, or None where it never had one."""
    return session.get(Circuit, study_id)


def wait_until(session: Session, circuit: Circuit | None, now: datetime) -> datetime | None:
    """Return until when the back end is left in peace; None where it may be asked now.

    A job that is let through an open circuit whose pause is over makes it half open, for one answer.
    """
    if circuit is None or circuit.state == CLOSED or circuit.retry_at is None:
        return None
    if circuit.retry_at > now:
        # the answer may come between our look and our being put off, and then nothing wakes us
        return circuit.retry_at if circuit.state == OPEN else min(circuit.retry_at, now + LOOK_AGAIN)
    circuit.state, circuit.retry_at = HALF_OPEN, now + PROBE
    session.flush()
    return None


def count_failure(session: Session, study_id: int) -> int:
    """Note that the back end did not answer; return how many times in a row that was."""
    new = insert(Circuit).values(study_id=study_id, failures=1)
    upsert = new.on_conflict_do_update(index_elements=["study_id"], set_={"failures": Circuit.failures + 1})
    return session.scalar(upsert.returning(Circuit.failures)) or 0


def open_until(session: Session, study_id: int, now: datetime, retry_at: datetime) -> None:
    """Leave the back end in peace until `retry_at`, or longer where the circuit is open until later already.

    A job that was sent before the circuit opened ends no pause.
    """
    earlier = case((Circuit.state == OPEN, Circuit.retry_at))
    session.execute(
        update(Circuit)
        .where(Circuit.study_id == study_id)
        .values(
            state=OPEN,
            opened_at=func.coalesce(Circuit.opened_at, now),
            retry_at=func.greatest(earlier, retry_at),
        )
        .execution_options(synchronize_session=False)
    )


def answered(session: Session, study_id: int) -> None:
    """Close the circuit, since the back end answered: it may be asked again at any time."""
    session.execute(
        update(Circuit)
        .where(Circuit.study_id == study_id, Circuit.failures > 0)
        .values(state=CLOSED, failures=0, opened_at=None, retry_at=None)
        .execution_options(synchronize_session=False)
    )


def probed(session: Session, study_id: int, now: datetime) -> None:
    """Let the jobs that were put off look again now, since the one that asked is back."""
    session.execute(
        update(Job)
        .where(Job.study_id == study_id, Job.state == QUEUED, Job.reason == REASON)
        .values(run_after=now)
        .execution_options(synchronize_session=False)
    )
