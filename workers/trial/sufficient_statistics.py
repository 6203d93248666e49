"""Sufficient statistics of a study: what a fit reads of them, making them from rows, and the comparison."""

from datetime import datetime
from functools import partial
from typing import NamedTuple

import numpy as np
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from algorithm.core.arrays import Ints
from algorithm.trial import protocol
from algorithm.trial.designs.design import Design
from algorithm.trial.learning_rows import Rows
from algorithm.trial.sufficient_statistics import Statistics, Stored, arrange, stored
from models.core import audit, jobs, studies
from models.core.session import transact
from models.oversight.incidents import RED, Condition, Kind
from models.trial import learning_rows, rebuilds, sufficient_statistics
from models.trial.sufficient_statistics import Kept, Members
from workers.core.celery_app import log, send
from workers.oversight.watchdog import record

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


def compare(study_id: int, now: datetime) -> None:
    """Make every participant's statistics anew; where one differs, all are thrown away and made again, and
    the policy with them.

    They come from the same rows by the same arithmetic, so they are equal to the last bit or wrong. It is an
    incident: policies may have been made of them.
    """
    kept, row_seq, design = transact(partial(_kept, study_id=study_id))
    number, features = len(kept.participants), design.feature_version
    differs = not transact(lambda session: sufficient_statistics.are_placed(session, study_id, features))
    parts = (kept.take(slice(start, start + PART)) for start in range(0, number, PART))
    differs = differs or any(not _equal(part, _again(study_id, part, row_seq, design)) for part in parts)
    found = [Condition(Kind.STATISTICS_DIFFER, RED, {"participants": number})] if differs else []
    record(study_id, [Kind.STATISTICS_DIFFER], found, now)
    if differs:  # written down first: who dies in between finds it again
        _rebuild(study_id, now)
        log.error("statistics thrown away", study_id=study_id, participants=number)


def _rebuild(study_id: int, now: datetime) -> None:
    refit = transact(
        lambda session: rebuilds.request(session, study_id, now, DIFFER, client_id=None, role=audit.SERVICE)
    )
    if not refit.joined:
        send(jobs.REFIT, refit.job_id)


def _again(study_id: int, part: Kept, row_seq: int, design: Design) -> Kept:
    """The statistics of the same participants from their rows."""
    found = transact(
        lambda session: learning_rows.snapshot(
            session, study_id, row_seq, part.participants.tolist(), design.feature_version
        )
    )
    return anew(design, found)


def _kept(session: Session, study_id: int) -> tuple[Kept, int, Design]:
    version = studies.protocol(session, studies.by_id(session, study_id))
    design = protocol.stored(version.document, version.hash).design
    row_seq = sufficient_statistics.seen(session, study_id, design.feature_version)
    return sufficient_statistics.kept(session, study_id, design.feature_version, row_seq), row_seq, design


def _equal(one: Kept, other: Kept) -> bool:
    return all(np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True))
