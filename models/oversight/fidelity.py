"""The running test of each study's draws: how far it has read, and the wealth of its tilts by stream.

A stream is a set of decisions that is fixed before their draws: all, those of one policy, mornings, evenings.
"""

from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ForeignKey, column, func, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, Floats
from models.core.connections import APPLICATION
from models.core.declarations import Export, means
from models.trial.decisions import Decision

ALL = "all"
WHOLE = 2**53
PgActivity = table("pg_stat_activity", *map(column, ("pid", "datname", "application_name", "xact_start")))


class RandomisationTest(Base):
    """One stream of a study: how many draws it has read since it began, the last rid, its log wealth.

    share: its weight among the study's streams. mismatched: draws that are not what their seed says.
    """

    __tablename__ = "randomisation_tests"
    __rights__ = "INSERT, UPDATE"
    __export__ = Export.WITHHELD  # computed from decisions, which are exported

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("studies.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(
        primary_key=True, info=means("set of decisions that is fixed before their draws")
    )
    since: Mapped[CreatedAt] = mapped_column(
        info=means("when the test of the stream began, or began anew", "UTC")
    )
    last_rid: Mapped[int] = mapped_column(
        BigInteger, info=means("rid of the last decision that was read; 0: none", range=">= 0")
    )
    decisions: Mapped[int] = mapped_column(info=means("number of draws read since it began", range=">= 0"))
    mismatched: Mapped[int] = mapped_column(
        info=means("number of draws that are not what their seed says", range=">= 0")
    )
    share: Mapped[float] = mapped_column(info=means("weight among the study's streams", range="(0, 1]"))
    log_wealth: Mapped[Floats] = mapped_column(info=means("logarithm of the wealth of each tilt"))
    log_evidence: Mapped[float] = mapped_column(
        info=means("logarithm of the stream's evidence against its probabilities")
    )


class Draws(NamedTuple):
    """Randomised decisions, (n,) each; `policy_id` is -1 where none served."""

    rid: NDArray[np.int64]
    policy_id: NDArray[np.int64]
    evening: NDArray[np.bool_]
    act_prob: NDArray[np.float64]
    action: NDArray[np.float64]
    mismatched: NDArray[np.bool_]


class State(NamedTuple):
    """All streams of a study, (k,): weights and log evidence; and how many draws are not their seed's."""

    shares: NDArray[np.float64]
    log_evidence: NDArray[np.float64]
    decisions: int
    mismatched: int


def oldest_transaction(session: Session) -> datetime | None:
    """Return when the service's oldest open transaction but this one began; None where there is none.

    Ask before the transaction that reads begins: it sees what is committed between the two.
    """
    began: datetime | None = session.scalar(
        select(func.min(PgActivity.c.xact_start))
        .where(PgActivity.c.datname == func.current_database(), PgActivity.c.application_name == APPLICATION)
        .where(PgActivity.c.pid != func.pg_backend_pid())
    )
    return began


def unread(session: Session, study_id: int, before: datetime, limit: int) -> Draws:
    """Return randomised decisions that the test has not read, by rid, to the last generated before `before`.

    Lower rids are read with that one, also where they have a later moment: none is skipped for good. No
    transaction that took a rid by `before` may be open still, or its decision would be skipped.
    """
    reached = session.scalar(
        select(RandomisationTest.last_rid).where(
            RandomisationTest.study_id == study_id, RandomisationTest.stream == ALL
        )
    )
    rows = session.execute(
        select(
            Decision.id,
            Decision.policy_id,
            Decision.evening,
            Decision.act_prob,
            Decision.action,
            Decision.seed,
            Decision.act_gen_timestamp,
        )
        .where(Decision.study_id == study_id, Decision.id > (reached or 0), Decision.available)
        .order_by(Decision.id)
        .limit(limit)
    ).all()
    settled = [place for place, row in enumerate(rows, 1) if row.act_gen_timestamp < before]
    rows = rows[: settled[-1] if settled else 0]
    act_prob = np.array([row.act_prob for row in rows], dtype=np.float64)
    action = np.array([row.action for row in rows], dtype=np.float64)
    drawn = np.array([row.seed / WHOLE for row in rows], dtype=np.float64) < act_prob
    return Draws(
        np.array([row.id for row in rows], dtype=np.int64),
        np.array([-1 if row.policy_id is None else row.policy_id for row in rows], dtype=np.int64),
        np.array([row.evening for row in rows], dtype=np.bool_),
        act_prob,
        action,
        drawn != (action == 1),
    )


def locked(session: Session, study_id: int, streams: list[str]) -> dict[str, RandomisationTest]:
    """Return the streams that exist, by name, locked until the transaction ends."""
    tests = session.scalars(
        select(RandomisationTest)
        .where(RandomisationTest.study_id == study_id, RandomisationTest.stream.in_(streams))
        .order_by(RandomisationTest.stream)
        .with_for_update()
    )
    return {test.stream: test for test in tests}


def begin(session: Session, study_id: int, stream: str, share: float, tilts: int) -> RandomisationTest:
    """Return a new stream that has read nothing."""
    values = {"decisions": 0, "mismatched": 0, "last_rid": 0, "log_evidence": 0.0, "share": share}
    session.execute(
        insert(RandomisationTest).values(study_id=study_id, stream=stream, log_wealth=[0.0] * tilts, **values)
    )
    return session.get_one(RandomisationTest, (study_id, stream))


def restart(session: Session, study_id: int, acknowledged_at: datetime) -> None:
    """Begin the test of a study anew, unless that was done after `acknowledged_at`."""
    streams = session.scalars(
        select(RandomisationTest)
        .where(RandomisationTest.study_id == study_id, RandomisationTest.since < acknowledged_at)
        .with_for_update()
    )
    for stream in streams:
        stream.log_wealth = [0.0] * len(stream.log_wealth)
        stream.decisions = stream.mismatched = 0
        stream.log_evidence, stream.since = 0.0, func.now()
    session.flush()


def state(session: Session, study_id: int) -> State:
    """Return the weights and the evidence of the study's streams, with the counts of the stream of all."""
    rows = session.execute(
        select(
            RandomisationTest.stream,
            RandomisationTest.share,
            RandomisationTest.log_evidence,
            RandomisationTest.decisions,
            RandomisationTest.mismatched,
        ).where(RandomisationTest.study_id == study_id)
    ).all()
    of_all = next((row for row in rows if row.stream == ALL), None)
    return State(
        np.array([row.share for row in rows], dtype=np.float64),
        np.array([row.log_evidence for row in rows], dtype=np.float64),
        of_all.decisions if of_all else 0,
        of_all.mismatched if of_all else 0,
    )
