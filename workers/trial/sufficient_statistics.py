"""Sufficient statistics of a study: what a fit reads of them, making them from rows, and the comparison."""

from typing import NamedTuple

import numpy as np
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from algorithm.core.arrays import Ints
from algorithm.trial.designs.design import Design
from algorithm.trial.learning_rows import Rows
from algorithm.trial.sufficient_statistics import Statistics, Stored, arrange, stored
from models.core.session import transact
from models.trial import learning_rows, sufficient_statistics
from models.trial.sufficient_statistics import Kept, Members

PART = 500
DIFFER = "statistics are not what their rows give"


class Vanished(Exception):
    """Statistics that a fit relies on are gone: the nightly comparison threw them away in the meantime."""


class Reading(NamedTuple):
    """Which statistics of a study a fit learns from."""

    study_id: int
    feature_version: str
    row_seq: int

    def kept(self, session: Session, size: int, *who: ColumnElement[bool]) -> Kept:
        """Those of `size` participants, all or those of whom `who` holds. Raises Vanished."""
        found = sufficient_statistics.kept(session, *self, *who)
        if len(found.participants) != size:
            raise Vanished(f"statistics of {len(found.participants)} participants, not {size}")
        return found


class Table(NamedTuple):
    """Statistics where they lie: read when they are asked for, so that not all of them are in memory.

    Participants are coded by their place among the members.
    """

    reading: Reading
    everybody: Members

    @property
    def counts(self) -> Ints:
        """The rows of each."""
        return self.everybody.counts

    @property
    def members(self) -> Ints:
        """All of them."""
        return np.arange(len(self.counts))

    def block(self, members: Ints) -> Statistics:
        """The statistics of some, by ascending code. Raises Vanished."""
        ids = self.everybody.participants[members].tolist()
        size, who = len(members), sufficient_statistics.among(ids)
        found = source(transact(lambda session: self.reading.kept(session, size, who)))
        return found.block(found.members)


def source(kept: Kept) -> Stored:
    """What a fit learns from, in memory; participants are coded by their place."""
    return Stored(kept.packed, kept.c, kept.counts)


def anew(design: Design, found: learning_rows.Rows) -> Kept:
    """Statistics from rows."""
    if not len(found.participants):
        return Kept(found.participants, np.empty(0, np.int64), np.empty(0), np.empty((0, 0)))
    learning = Rows(found.codes, found.states, found.act_prob, found.action, found.outcome)
    made = stored(arrange(design, learning, len(found.participants)))
    return Kept(found.participants, made.counts, made.c, made.packed)
