"""Blocks of policies: the part of a policy that serves one participant, and how a fit writes all of them."""

import io
from contextlib import closing
from typing import Any

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, Floats
from models.core.declarations import Export, means
from models.core.pg_arrays import COPY_BEGINS, COPY_ENDS, Array, binary, copied, fill, pack


class PolicyBlock(Base):
    """A participant's advantage posterior under one policy: q means and the q(q+1)/2 upper covariances."""

    __tablename__ = "policy_blocks"
    __rights__ = "INSERT, DELETE"
    __export__ = Export.ROWS

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("studies.id"), primary_key=True)
    policy_id: Mapped[int] = mapped_column(primary_key=True)
    participant_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("participants.id"), primary_key=True)
    mean: Mapped[Floats] = mapped_column(
        info=means("posterior mean of the participant's advantage, q values", "reward units")
    )
    covariance: Mapped[Floats] = mapped_column(
        info=means("upper triangle of its covariance, by rows", "reward units squared")
    )


COLUMNS = ("study_id", "policy_id", "participant_id", "mean", "covariance")


def add(
    session: Session,
    study_id: int,
    policy_id: int,
    participants: list[int],
    means: Array,
    covariances: Array,
) -> None:
    """Insert a policy's blocks of m participants, with `means` (m, q) and `covariances` (m, q, q).

    They are written by COPY, in binary: as INSERT, the blocks of ten thousand participants would take the
    database seconds, as text a third of one, in which decisions wait for a processor.
    """
    packed = pack(covariances)
    kinds = (">i8", ">i4", ">i8", binary(means.shape[1]), binary(packed.shape[1]))
    rows = copied(dict(zip(COLUMNS, kinds, strict=True)), len(means))
    rows["study_id"]["value"], rows["policy_id"]["value"] = study_id, policy_id
    rows["participant_id"]["value"] = participants
    fill(rows["mean"]["value"], means)
    fill(rows["covariance"]["value"], packed)
    driver: Any = session.connection().connection
    statement = f"COPY {PolicyBlock.__tablename__} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
    with closing(driver.cursor()) as cursor:
        cursor.copy_expert(statement, io.BytesIO(COPY_BEGINS + rows.tobytes() + COPY_ENDS))
