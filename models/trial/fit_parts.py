"""Parts of a fit: blocks of participants that any worker may take, and the result of each.

They live as long as the fit. A part without a result is open; its worker holds its lock, which dies with the
worker.
"""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, delete, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Id, ProtocolId, StudyId
from models.core.declarations import Export, means
from models.core.jobs import RUNNING, Job, LostClaim

FIRST = "first"
SECOND = "second"


class Part(Base):
    """The participants of a study from `first_participant` to `last_participant`, of whom `size` are learnt
    from, in one of the two steps of attempt `attempt` at a fit.

    row_seq: the last row that is learnt from. policy_id: what serves now. terms, result: arrays of float64.
    done_by: the process that made the result.
    """

    __tablename__ = "fit_parts"
    __rights__ = "INSERT, UPDATE, DELETE"
    __export__ = Export.WITHHELD  # they live as long as the fit
    __table_args__ = (CheckConstraint("step IN ('first', 'second')", name="step"),)

    id: Mapped[Id]
    study_id: Mapped[StudyId]
    job_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("jobs.id"), index=True, info=means("the job that fits", range=">= 1")
    )
    attempt: Mapped[int] = mapped_column(info=means("attempt of the job at its fit", range=">= 1"))
    protocol_id: Mapped[ProtocolId]
    row_seq: Mapped[int] = mapped_column(
        BigInteger, info=means("last learning row that is learnt from", range=">= 0")
    )
    policy_id: Mapped[int] = mapped_column(
        info=means("number of the policy that serves when the fit begins", range=">= 0")
    )
    first_participant: Mapped[int] = mapped_column(
        BigInteger, info=means("lowest participant id of the part", range=">= 1")
    )
    last_participant: Mapped[int] = mapped_column(
        BigInteger, info=means("highest participant id of the part", range=">= 1")
    )
    size: Mapped[int] = mapped_column(
        info=means("number of its participants who are learnt from", range=">= 0")
    )
    step: Mapped[str] = mapped_column(info=means("step of the fit that the part belongs to"))
    terms: Mapped[bytes] = mapped_column(info=means("what the step is computed with: arrays of float64"))
    result: Mapped[bytes | None] = mapped_column(
        info=means("what the part gives: arrays of float64; null: it is open")
    )
    done_by: Mapped[str | None] = mapped_column(info=means("process that computed the result"))
    created_at: Mapped[CreatedAt]


class Span(NamedTuple):
    """Some participants in a row, by id: the first, the last, and how many of them are learnt from."""

    first: int
    last: int
    size: int


class Basis(NamedTuple):
    """The columns that all parts of a fit have in common."""

    protocol_id: int
    row_seq: int
    policy_id: int


def add(session: Session, job: Job, basis: Basis, step: str, terms: bytes, spans: list[Span]) -> list[int]:
    """Insert the parts of one step of the claimed job's fit; return their ids, in the order of `spans`."""
    common = {"study_id": job.study_id, "job_id": job.id, "attempt": job.attempts, **basis._asdict()}
    parts = [
        Part(
            **common,
            step=step,
            terms=terms,
            first_participant=span.first,
            last_participant=span.last,
            size=span.size,
        )
        for span in spans
    ]
    session.add_all(parts)
    session.flush()
    return [part.id for part in parts]


def open_part(session: Session, part_id: int) -> Part | None:
    """Return the part, or None where it has its result or is gone."""
    return session.scalars(select(Part).where(Part.id == part_id, Part.result.is_(None))).one_or_none()


def finish(session: Session, part_id: int, result: bytes, done_by: str) -> None:
    """Store the result of a part, unless it has one already, which is the same, or is gone."""
    session.execute(
        update(Part)
        .where(Part.id == part_id, Part.result.is_(None))
        .values(result=result, done_by=done_by)
        .execution_options(synchronize_session=False)
    )


def unfinished(session: Session, part_ids: list[int]) -> list[int]:
    """Return the parts that are open, in their order."""
    open_ids = set(session.scalars(select(Part.id).where(Part.id.in_(part_ids), Part.result.is_(None))))
    return [part_id for part_id in part_ids if part_id in open_ids]


def result(session: Session, part_id: int) -> tuple[bytes, str]:
    """Return a part's result, and its process. Raises LostClaim for a part that is gone with its fit."""
    part: Any = session.execute(
        select(Part.result, Part.done_by).where(Part.id == part_id, Part.result.is_not(None))
    ).one_or_none()
    if part is None:
        raise LostClaim(f"part {part_id} is gone")
    return part.result, part.done_by


def clear(session: Session, job: Job) -> None:
    """Delete the parts of the claimed job's fit."""
    session.execute(
        delete(Part)
        .where(Part.job_id == job.id, Part.attempt == job.attempts)
        .execution_options(synchronize_session=False)
    )


def clear_abandoned(session: Session) -> int:
    """Delete the parts of fits that are over, or were taken up anew; return how many."""
    over = select(Job.id).where(
        Job.id == Part.job_id, or_(Job.state != RUNNING, Job.attempts != Part.attempt)
    )
    deleted: Any = session.execute(
        delete(Part).where(over.exists()).execution_options(synchronize_session=False)
    )
    return int(deleted.rowcount)
