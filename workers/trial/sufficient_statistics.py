"""Sufficient statistics for a fit: reading those that are stored, and computing them from learning rows."""

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


class Vanished(Exception):
    """The loss of statistics during a fit that relies on them: the nightly comparison threw them away."""


class Reading(NamedTuple):
    """The statistics of a study that a fit learns from: one version of features, rows up to `row_seq`."""

    study_id: int
    feature_version: str
    row_seq: int

    def kept(self, session: Session, size: int, *conditions: ColumnElement[bool]) -> Kept:
        """Read the statistics of all participants who meet the conditions. Raises Vanished.

        size: the number of participants that there must be.
        """
        kept = sufficient_statistics.kept(session, *self, *conditions)
        if len(kept.participants) != size:
            raise Vanished(f"statistics of {len(kept.participants)} participants, not {size}")
        return kept


class Table(NamedTuple):
    """Statistics in the database that are read block by block, so that not all of them are in memory at once.

    Participants are coded by their place among the members.
    """

    reading: Reading
    everybody: Members

    @property
    def counts(self) -> Ints:
        """The number of learning rows of each participant, shape (participants,)."""
        return self.everybody.counts

    @property
    def members(self) -> Ints:
        """The codes of all participants, shape (participants,)."""
        return np.arange(len(self.counts))

    def block(self, members: Ints) -> Statistics:
        """Read the statistics of some participants, by ascending code. Raises Vanished."""
        ids = self.everybody.participants[members].tolist()
        kept = transact(self.reading.kept, len(members), sufficient_statistics.among(ids))
        in_memory = source(kept)
        return in_memory.block(in_memory.members)


def source(kept: Kept) -> Stored:
    """Return statistics in memory for the learner; participants are coded by their place."""
    return Stored(kept.packed, kept.c, kept.counts)


def from_rows(design: Design, rows: learning_rows.Rows) -> Kept:
    """Compute the statistics of the participants of some learning rows."""
    if not len(rows.participants):
        return Kept(rows.participants, np.empty(0, np.int64), np.empty(0), np.empty((0, 0)))
    learner_rows = Rows(rows.codes, rows.states, rows.act_prob, rows.action, rows.outcome)
    statistics = stored(arrange(design, learner_rows, len(rows.participants)))
    return Kept(rows.participants, statistics.counts, statistics.c, statistics.packed)
