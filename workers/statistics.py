"""Sufficient statistics of a study: those that are stored, and anew those of participants with new rows."""

from datetime import datetime
from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from algorithm import protocol
from algorithm.protocols.design import Design
from algorithm.rows import Rows
from algorithm.statistics import Stored, arrange, stored
from models import rows, statistics, studies
from models.incidents import RED, Condition, Kind
from models.session import transact
from models.statistics import Kept
from workers.app import log
from workers.watch import record

PART = 500


class Gathered(NamedTuple):
    """`new`: of participants with new rows. `everybody`: of all participants with rows, by ascending id."""

    new: Kept
    everybody: Kept

    def source(self) -> Stored:
        """What a fit learns from; participants are coded by their place."""
        return Stored(self.everybody.packed, self.everybody.c, self.everybody.counts)


def gather(design: Design, found: rows.Rows, kept: Kept) -> Gathered:
    """The statistics of `found`, all rows of some participants, and with them `kept`, those of the others."""
    new = anew(design, found)
    if not len(kept.participants) or not len(new.participants):
        return Gathered(new, kept if len(kept.participants) else new)
    both = Kept(
        np.concatenate([kept.participants, new.participants]),
        np.concatenate([kept.counts, new.counts]),
        np.concatenate([kept.c, new.c]),
        np.concatenate([kept.packed, new.packed]),
    )
    return Gathered(new, both.take(np.argsort(both.participants)))


def anew(design: Design, found: rows.Rows) -> Kept:
    """Statistics from rows."""
    if not len(found.participants):
        return Kept(found.participants, np.empty(0, np.int64), np.empty(0), np.empty((0, 0)))
    learning = Rows(found.codes, found.states, found.act_prob, found.action, found.outcome)
    made = stored(arrange(design, learning, len(found.participants)))
    return Kept(found.participants, made.counts, made.c, made.packed)


def compare(study_id: int, now: datetime) -> None:
    """Make every participant's statistics anew; where one differs, all are thrown away and made again.

    They come from the same rows by the same arithmetic, so they are equal to the last bit or wrong. It is an
    incident: policies may have been made of them.
    """
    kept, row_seq, design = transact(partial(_kept, study_id=study_id))
    number = len(kept.participants)
    starts = range(0, number, PART)
    parts = (kept.take(slice(start, start + PART)) for start in starts)
    differs = any(not _equal(part, _again(study_id, part, row_seq, design)) for part in parts)
    found = [Condition(Kind.STATISTICS_DIFFER, RED, {"participants": number})] if differs else []
    record(study_id, [Kind.STATISTICS_DIFFER], found, now)
    if differs:  # written down first: who dies in between finds it again
        transact(partial(statistics.forget, study_id=study_id))
        log.error("statistics thrown away", study_id=study_id, participants=number)


def _again(study_id: int, part: Kept, row_seq: int, design: Design) -> Kept:
    """The statistics of the same participants from their rows."""
    found = transact(
        lambda session: rows.snapshot(
            session, study_id, row_seq, part.participants.tolist(), design.feature_version
        )
    )
    return anew(design, found)


def _kept(session: Session, study_id: int) -> tuple[Kept, int, Design]:
    version = studies.protocol(session, studies.by_id(session, study_id))
    design = protocol.stored(version.document, version.hash).design
    row_seq = statistics.seen(session, study_id, design.feature_version)
    return statistics.kept(session, study_id, design.feature_version, row_seq), row_seq, design


def _equal(one: Kept, other: Kept) -> bool:
    return all(np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True))
