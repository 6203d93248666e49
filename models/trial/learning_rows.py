"""Learning rows: the pairs (decision t, proximal outcome) that a fit learns from, in a fixed order.

A row gets its `row_seq` under the study's lock, so "all rows up to n" means the same set for ever. A
corrected outcome is a new row of the same decision; the highest `row_seq` of a decision counts.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, CreatedAt, DecisionId, ParticipantId
from models.core.declarations import Export, means
from models.core.studies import Study
from models.trial.participants import Participant


class Row(Base):
    """Decision `decision_index` of a participant and the outcome of its action."""

    __tablename__ = "learning_rows"
    __rights__ = "INSERT"
    __export__ = Export.LONG_TABLE
    __table_args__ = (
        Index("ix_learning_rows_decision_id_row_seq", "decision_id", "row_seq"),
        Index("ix_learning_rows_participant_id_row_seq", "participant_id", "row_seq"),
    )

    study_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("studies.id"), primary_key=True)
    row_seq: Mapped[int] = mapped_column(
        BigInteger,
        primary_key=True,
        autoincrement=False,
        info=means("order in which learning rows came to be", range=">= 0"),
    )
    participant_id: Mapped[ParticipantId]
    decision_id: Mapped[DecisionId]
    decision_index: Mapped[int]
    outcome: Mapped[float] = mapped_column(
        info=means("outcome of the decision's action, as known when the row came", "reward units")
    )
    created_at: Mapped[CreatedAt]


class Rows(NamedTuple):
    """Rows as arrays, ordered by participant and decision index; `participants` holds the ids of `codes`."""

    participants: NDArray[np.int64]
    codes: NDArray[np.int64]
    states: NDArray[np.float64]
    act_prob: NDArray[np.float64]
    action: NDArray[np.float64]
    outcome: NDArray[np.float64]


OUTCOME = """
    coalesce((SELECT a.reward FROM answers a
              WHERE a.decision_id = o.id AND a.source = 'ema' AND coalesce(a.reward, o.reward) IS NOT NULL
              ORDER BY a.version DESC LIMIT 1), o.reward)
"""
RANDOMISED = """
    d.state IS NOT NULL AND d.available AND d.fallback_level <> 'F4' AND d.feature_version = :feature_version
"""

# A participant with statistics was looked through up to `row_index`: an earlier row can change only by a
# correction, which is counted. OFFSET 0 keeps the planner from reading all decisions for the few new ones.
COLLECT = f"""
INSERT INTO learning_rows (study_id, row_seq, participant_id, decision_id, decision_index, outcome)
SELECT :study_id, :row_seq + row_number() OVER (ORDER BY pair.outcome_id, pair.decision_id),
       pair.participant_id, pair.decision_id, pair.decision_index, pair.outcome
FROM participants p
LEFT JOIN statistics s
       ON s.participant_id = p.id AND s.corrections = p.corrections AND s.feature_version = :feature_version
CROSS JOIN LATERAL (
    SELECT d.participant_id, d.id AS decision_id, d.decision_index, o.id AS outcome_id, {OUTCOME} AS outcome
    FROM decisions d
    JOIN decisions o
      ON o.participant_id = d.participant_id AND o.decision_index = d.decision_index + :outcome_lag
    WHERE d.participant_id = p.id AND d.decision_index > coalesce(s.row_index, 0) AND {RANDOMISED}
    OFFSET 0) pair
WHERE p.study_id = :study_id AND p.removed_row_seq IS NULL AND pair.outcome IS NOT NULL
  AND pair.outcome IS DISTINCT FROM (SELECT r.outcome FROM learning_rows r
                                     WHERE r.decision_id = pair.decision_id
                                     ORDER BY r.row_seq DESC LIMIT 1)
"""

COUNT = f"""
SELECT count(*) FROM decisions d
JOIN decisions o ON o.participant_id = d.participant_id AND o.decision_index = d.decision_index + :outcome_lag
JOIN participants p ON p.id = d.participant_id AND p.removed_row_seq IS NULL
WHERE d.study_id = :study_id AND {RANDOMISED} AND {OUTCOME} IS NOT NULL
"""

SNAPSHOT = """
SELECT r.participant_id, d.state, d.act_prob, d.action, r.outcome
FROM (SELECT DISTINCT ON (participant_id, decision_index) * FROM learning_rows
      WHERE study_id = :study_id AND row_seq <= :row_seq AND participant_id = ANY (:participants)
      ORDER BY participant_id, decision_index, row_seq DESC) r
JOIN decisions d ON d.id = r.decision_id AND d.feature_version = :feature_version
JOIN participants p ON p.id = r.participant_id
WHERE p.removed_row_seq IS NULL OR p.removed_row_seq > :row_seq
ORDER BY r.participant_id, r.decision_index
"""


def collect(session: Session, study: Study, outcome_lag: int, feature_version: str) -> int:
    """Give every pair that has come to exist, or whose outcome was corrected, a row; return the last row_seq.

    `study` must be locked: the order of rows hangs on it.
    """
    parameters = {"study_id": study.id, "row_seq": study.row_seq, "outcome_lag": outcome_lag}
    added: Any = session.execute(text(COLLECT), {**parameters, "feature_version": feature_version})
    study.row_seq += added.rowcount
    return study.row_seq


def remove(session: Session, study: Study, participant: Participant) -> int:
    """Let no later policy be fitted from a participant's rows; return the removal's place in their order.

    `study` and `participant` must be locked. The removal takes a number of its own among the rows, so that a
    policy contains it exactly where its `row_seq` is not below.
    """
    study.row_seq += 1
    participant.removed_row_seq = study.row_seq
    session.flush()
    return study.row_seq


def snapshot(
    session: Session, study_id: int, row_seq: int, participants: list[int], feature_version: str
) -> Rows:
    """Return some participants' rows, under these features, that counted when `row_seq` was the last one."""
    parameters = {"study_id": study_id, "row_seq": row_seq, "participants": participants}
    rows = session.execute(text(SNAPSHOT), parameters | {"feature_version": feature_version}).all()
    ids, codes = np.unique(
        np.array([row.participant_id for row in rows], dtype=np.int64), return_inverse=True
    )
    return Rows(
        participants=ids,
        codes=codes.astype(np.int64),
        states=np.array([row.state for row in rows], dtype=np.float64),
        act_prob=np.array([row.act_prob for row in rows], dtype=np.float64),
        action=np.array([row.action for row in rows], dtype=np.float64),
        outcome=np.array([row.outcome for row in rows], dtype=np.float64),
    )


def possible(session: Session, study_id: int, outcome_lag: int, feature_version: str) -> int:
    """Return how many decisions under these features have an outcome by now, be it with or without a row."""
    parameters = {"study_id": study_id, "outcome_lag": outcome_lag, "feature_version": feature_version}
    return session.scalar(text(COUNT), parameters) or 0
