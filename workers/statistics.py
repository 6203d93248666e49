"""Sufficient statistics of a study: those that are stored, and anew those of participants with new rows."""

from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from algorithm import protocol
from algorithm.protocols.design import Design
from algorithm.rows import Rows
from algorithm.statistics import Stored, arrange, stored
from models import rows, statistics, studies
from models.session import transact
from models.statistics import Kept
from workers.app import log

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


def compare(study_id: int) -> None:
    """Make every participant's statistics anew; where one differs, all are thrown away, to be made again.

    They come from the same rows by the same arithmetic, so they are equal to the last bit or wrong.
    """
    kept, row_seq, design = transact(partial(_kept, study_id=study_id))
    for start in range(0, len(kept.participants), PART):
        part = kept.take(slice(start, start + PART))
        ids = part.participants.tolist()
        known = {"row_seq": row_seq, "participants": ids, "feature_version": design.feature_version}
        found = transact(partial(rows.snapshot, study_id=study_id, **known))
        if not _equal(part, anew(design, found)):
            count = transact(partial(statistics.forget, study_id=study_id))
            log.error("statistics differ from their rows", study_id=study_id, thrown_away=count)
            return


def _kept(session: Session, study_id: int) -> tuple[Kept, int, Design]:
    version = studies.protocol(session, studies.by_id(session, study_id))
    design = protocol.load(version.document).design
    row_seq = statistics.seen(session, study_id, design.feature_version)
    return statistics.kept(session, study_id, design.feature_version, row_seq), row_seq, design


def _equal(one: Kept, other: Kept) -> bool:
    return all(np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True))
