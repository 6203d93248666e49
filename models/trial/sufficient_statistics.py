"""Sufficient statistics of each participant's learning rows: derived, so that a fit need not read all rows.

They are a function of the rows alone, computed anew from all rows of a participant whenever one of them is
new or corrected, so they can be thrown away at any time and compared with a rebuild for equality.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, ColumnElement, ForeignKey, delete, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from models.core.base import Base, StudyId
from models.core.declarations import Export, means
from models.trial.participants import Participant


class ParticipantStatistics(Base):
    """One participant's statistics under the features of `feature_version`.

    row_index: the highest decision index with a row; row_seq: the last row contained; corrections: the
    participant's counter when the rows were looked through. packed: float64, little-endian, as the learner
    packs them; c: the sum of squared outcomes.
    """

    __tablename__ = "statistics"
    __rights__ = "INSERT, UPDATE, DELETE"
    __export__ = Export.WITHHELD  # computed from learning rows, which are exported

    participant_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("participants.id"), primary_key=True)
    study_id: Mapped[StudyId] = mapped_column(index=True)
    feature_version: Mapped[str]
    row_index: Mapped[int] = mapped_column(
        info=means("highest decision index with a learning row", range=">= 1")
    )
    row_seq: Mapped[int] = mapped_column(BigInteger, info=means("last learning row contained", range=">= 0"))
    corrections: Mapped[int] = mapped_column(
        info=means("the participant's `corrections` when the rows were read", range=">= 0")
    )
    row_count: Mapped[int] = mapped_column(info=means("number of rows contained", range=">= 0"))
    c: Mapped[float] = mapped_column(info=means("sum of squared outcomes", "reward units squared", ">= 0"))
    packed: Mapped[bytes] = mapped_column(
        info=means("the other sums, as the learner packs them: float64, little-endian")
    )


class Kept(NamedTuple):
    """Statistics of k participants by ascending id: `participants` (k,), `counts` (k,), `c` (k,), `packed`
    (k, e)."""

    participants: NDArray[np.int64]
    counts: NDArray[np.int64]
    c: NDArray[np.float64]
    packed: NDArray[np.float64]

    def take(self, places: NDArray[np.intp] | slice) -> "Kept":
        """Return the statistics at some places."""
        return Kept(self.participants[places], self.counts[places], self.c[places], self.packed[places])


class Members(NamedTuple):
    """The participants a fit learns from, by ascending id (k,), and how many rows each of them has (k,)."""

    participants: NDArray[np.int64]
    counts: NDArray[np.int64]

    def together(self, other: "Members") -> "Members":
        """Return these members and others, none of whom is among these."""
        participants = np.concatenate((self.participants, other.participants))
        counts = np.concatenate((self.counts, other.counts))
        order = np.argsort(participants)
        return Members(participants[order], counts[order])


SEEN = """
SELECT coalesce(max(row_seq), 0) FROM statistics
WHERE study_id = :study_id AND feature_version = :feature_version
"""
KEEP = """
INSERT INTO statistics (study_id, feature_version, participant_id, row_index, row_seq, corrections,
    row_count, c, packed)
SELECT :study_id, :feature_version, k.participant_id, r.row_index, r.row_seq, k.corrections, k.row_count, k.c,
    k.packed
FROM unnest(cast(:participants AS bigint[]), cast(:corrections AS int[]), cast(:counts AS int[]),
    cast(:c AS float8[]), cast(:packed AS bytea[]))
    AS k (participant_id, corrections, row_count, c, packed)
CROSS JOIN LATERAL (
    SELECT max(decision_index) AS row_index, max(row_seq) AS row_seq FROM learning_rows
    WHERE participant_id = k.participant_id AND row_seq <= :row_seq) r
ON CONFLICT (participant_id) DO UPDATE SET feature_version = excluded.feature_version,
    row_index = excluded.row_index, row_seq = excluded.row_seq, corrections = excluded.corrections,
    row_count = excluded.row_count, c = excluded.c, packed = excluded.packed
"""
CHANGED = """
SELECT DISTINCT r.participant_id FROM learning_rows r JOIN participants p ON p.id = r.participant_id
WHERE r.study_id = :study_id AND r.row_seq > :seen AND r.row_seq <= :row_seq
  AND (p.removed_row_seq IS NULL OR p.removed_row_seq > :row_seq)
UNION
SELECT s.participant_id FROM statistics s JOIN participants p ON p.id = s.participant_id
WHERE s.study_id = :study_id AND s.corrections <> p.corrections
  AND (p.removed_row_seq IS NULL OR p.removed_row_seq > :row_seq)
UNION
SELECT p.id FROM participants p
WHERE p.study_id = :study_id AND NOT EXISTS (SELECT FROM statistics s WHERE s.participant_id = p.id)
  AND EXISTS (SELECT FROM learning_rows r WHERE r.participant_id = p.id AND r.row_seq <= :row_seq)
  AND (p.removed_row_seq IS NULL OR p.removed_row_seq > :row_seq)
"""
MISPLACED = """
SELECT s.participant_id FROM statistics s
CROSS JOIN LATERAL (
    SELECT max(decision_index) AS row_index, max(row_seq) AS row_seq FROM learning_rows
    WHERE participant_id = s.participant_id AND row_seq <= s.row_seq) r
WHERE s.study_id = :study_id AND s.feature_version = :feature_version
  AND (s.row_index, s.row_seq) IS DISTINCT FROM (r.row_index, r.row_seq)
LIMIT 1
"""


def corrections(session: Session, study_id: int) -> dict[int, int]:
    """Return how often outcomes were corrected, by participant; those without a correction are left out."""
    rows = session.execute(
        select(Participant.id, Participant.corrections).where(
            Participant.study_id == study_id, Participant.corrections > 0
        )
    )
    return dict(rows.all())


def seen(session: Session, study_id: int, feature_version: str) -> int:
    """Return the last row that statistics contain: all rows up to it are in those of their participants."""
    return session.scalar(text(SEEN), {"study_id": study_id, "feature_version": feature_version}) or 0


def changed(session: Session, study_id: int, feature_version: str, row_seq: int) -> list[int]:
    """Return the participants whose rows up to `row_seq` are not, or not all, in their statistics."""
    last = seen(session, study_id, feature_version)
    parameters = {"study_id": study_id, "seen": last, "row_seq": row_seq}
    return sorted(session.scalars(text(CHANGED), parameters))


def members(
    session: Session, study_id: int, feature_version: str, row_seq: int, without: list[int]
) -> Members:
    """Return the members, but for those in `without`, whose stored statistics serve a fit up to `row_seq`."""
    rows = session.execute(
        select(ParticipantStatistics.participant_id, ParticipantStatistics.row_count)
        .join(Participant, Participant.id == ParticipantStatistics.participant_id)
        .where(*_learnt_from(study_id, feature_version, row_seq))
        .where(ParticipantStatistics.participant_id.not_in(without))
        .order_by(ParticipantStatistics.participant_id)
    ).all()
    return Members(
        np.array([row.participant_id for row in rows], dtype=np.int64),
        np.array([row.row_count for row in rows], dtype=np.int64),
    )


def kept(
    session: Session, study_id: int, feature_version: str, row_seq: int, *conditions: ColumnElement[bool]
) -> Kept:
    """Return the study's statistics under `feature_version`, of all participants or where `conditions` hold.

    Participants who were removed from learning up to `row_seq` are left out.
    """
    rows = session.execute(
        select(
            ParticipantStatistics.participant_id,
            ParticipantStatistics.row_count,
            ParticipantStatistics.c,
            ParticipantStatistics.packed,
        )
        .join(Participant, Participant.id == ParticipantStatistics.participant_id)
        .where(*_learnt_from(study_id, feature_version, row_seq), *conditions)
        .order_by(ParticipantStatistics.participant_id)
    ).all()
    packed = np.frombuffer(b"".join(row.packed for row in rows), dtype="<f8")
    return Kept(
        np.array([row.participant_id for row in rows], dtype=np.int64),
        np.array([row.row_count for row in rows], dtype=np.int64),
        np.array([row.c for row in rows], dtype=np.float64),
        packed.reshape(len(rows), -1).astype(np.float64) if rows else np.empty((0, 0)),
    )


def among(participants: list[int]) -> ColumnElement[bool]:
    """Return the condition that statistics are of one of these participants."""
    return ParticipantStatistics.participant_id.in_(participants)


def between(first: int, last: int) -> ColumnElement[bool]:
    """Return the condition that the id of the statistics' participant is in this range."""
    return ParticipantStatistics.participant_id.between(first, last)


def _learnt_from(study_id: int, feature_version: str, row_seq: int) -> tuple[ColumnElement[bool], ...]:
    return (
        or_(Participant.removed_row_seq.is_(None), Participant.removed_row_seq > row_seq),
        ParticipantStatistics.study_id == study_id,
        ParticipantStatistics.feature_version == feature_version,
    )


def keep(
    session: Session,
    study_id: int,
    feature_version: str,
    row_seq: int,
    new: Kept,
    corrections: dict[int, int],
) -> None:
    """Store the statistics of some participants' rows up to `row_seq`, in place of those they had."""
    participants = new.participants.tolist()
    session.execute(
        text(KEEP),
        {
            "study_id": study_id,
            "feature_version": feature_version,
            "row_seq": row_seq,
            "participants": participants,
            "corrections": [corrections.get(participant, 0) for participant in participants],
            "counts": new.counts.tolist(),
            "c": new.c.tolist(),
            "packed": [row.tobytes() for row in new.packed.astype("<f8")],
        },
    )


def are_placed(session: Session, study_id: int, feature_version: str) -> bool:
    """Return whether all statistics say rightly how far they go: rows are looked for beyond that alone."""
    return session.scalar(text(MISPLACED), {"study_id": study_id, "feature_version": feature_version}) is None


def forget(session: Session, study_id: int) -> int:
    """Delete the study's statistics and return how many: the next fit makes them anew from the rows."""
    deleted = session.execute(
        delete(ParticipantStatistics)
        .where(ParticipantStatistics.study_id == study_id)
        .returning(ParticipantStatistics.participant_id)
    )
    return len(deleted.all())
